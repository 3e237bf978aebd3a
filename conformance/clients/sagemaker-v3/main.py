"""The SageMaker Python SDK v3 as a client: ModelBuilder, and the resources of sagemaker-core.

It wants a role that it may try out by SimulatePrincipalPolicy, and can make one itself. For a default bucket without
a name it asks the STS of AWS, wherever AWS_ENDPOINT_URL leads: so the bucket has a name here.
"""

import io
import json
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import boto3
import numpy
from botocore.exceptions import ClientError
from sagemaker.core import image_uris
from sagemaker.core.deserializers import (
    BytesDeserializer,
    CSVDeserializer,
    JSONDeserializer,
    NumpyDeserializer,
)
from sagemaker.core.helper import IamRoleResolver
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.inference_config import AsyncInferenceConfig
from sagemaker.core.resources import EndpointConfig
from sagemaker.core.serializers import CSVSerializer, IdentitySerializer, JSONSerializer, NumpySerializer
from sagemaker.core.utils.exceptions import FailedStatusError
from sagemaker.serve.model_builder import ModelBuilder, SourceCode

from orders import unique
from report import check, equal, failure, required, run
from sagemaker_models import BROKEN, DOUBLING, FACTOR, REVERSING

SKLEARN = {"framework": "sklearn", "version": "1.2-1"}
XGBOOST = {"framework": "xgboost", "version": "1.7-1"}
PYTORCH = {"framework": "pytorch", "version": "2.3", "py_version": "py311"}
HUGGINGFACE = {
    "framework": "huggingface",
    "version": "4.37",
    "base_framework_version": "pytorch2.1",
    "py_version": "py310",
}
INSTANCE = "ml.m5.large"
ASKED = {"content_type": "application/json", "accept": "application/json"}


class Sdk:
    """A session with a bucket of its own, a role that the SDK has made, and the models' sources."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bucket = f"sdk-{unique()}"
        self.region = required("AWS_REGION")
        self.session = Session(
            boto_session=boto3.Session(region_name=self.region), default_bucket=self.bucket
        )
        self._role = ""
        for name, text in (("doubling", DOUBLING), ("reversing", REVERSING), ("broken", BROKEN)):
            (directory / name).mkdir()
            (directory / name / "inference.py").write_text(text)

    @property
    def role(self) -> str:
        self._role = self._role or IamRoleResolver().create_execution_role(role_type="serving")
        return self._role

    def builder(self, source: str, image: dict[str, str]) -> ModelBuilder:
        archive = self.directory / "model.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            entry = tarfile.TarInfo("factor.txt")
            entry.size = len(FACTOR)
            file.addfile(entry, io.BytesIO(FACTOR.encode()))
        url = self.session.upload_data(str(archive), key_prefix=f"models/{unique()}")
        builder = ModelBuilder(
            s3_model_data_url=url,
            image_uri=image_uris.retrieve(
                region=self.region, instance_type=INSTANCE, image_scope="inference", **image
            ),
            role_arn=self.role,
            sagemaker_session=self.session,
            source_code=SourceCode(source_dir=str(self.directory / source), entry_script="inference.py"),
            instance_type=INSTANCE,
        )
        builder.build(model_name=f"sdk-{unique()}")
        return builder

    def deploy(self, source: str, image: dict[str, str], **options: Any) -> Any:
        """The endpoint, in service. By itself the SDK looks every 30 seconds."""
        builder = self.builder(source, image)
        endpoint = builder.deploy(endpoint_name=f"sdk-{unique()}", wait=False, **options)
        endpoint.wait_for_status("InService", poll=1)
        return endpoint


def delete(endpoint: Any) -> None:
    config = EndpointConfig.get(endpoint_config_name=endpoint.endpoint_config_name)
    endpoint.delete()
    endpoint.wait_for_delete(poll=1)
    config.delete()
    boto3.client("sagemaker").delete_model(ModelName=config.production_variants[0].model_name)


def invoke(endpoint: Any, document: object) -> Any:
    return json.loads(endpoint.invoke(body=json.dumps(document), **ASKED).body.read())


def sklearn(sdk: Sdk) -> None:
    endpoint = sdk.deploy("doubling", SKLEARN)
    equal(invoke(endpoint, [[1.0, 2.0]]), [[2.0, 4.0]], "the prediction")
    delete(endpoint)


def xgboost(sdk: Sdk) -> None:
    endpoint = sdk.deploy("reversing", XGBOOST)
    equal(invoke(endpoint, {"text": "boats"}), {"text": "staob"}, "the prediction")
    delete(endpoint)


def pytorch(sdk: Sdk) -> None:
    endpoint = sdk.deploy("doubling", PYTORCH)
    equal(invoke(endpoint, [[1.0, 2.0]]), [[2.0, 4.0]], "the prediction")
    delete(endpoint)


def huggingface(sdk: Sdk) -> None:
    endpoint = sdk.deploy("reversing", HUGGINGFACE)
    equal(invoke(endpoint, {"text": "boats"}), {"text": "staob"}, "the prediction")
    delete(endpoint)


def failing(sdk: Sdk) -> None:
    endpoint = sdk.builder("broken", SKLEARN).deploy(endpoint_name=f"sdk-{unique()}", wait=False)
    error = failure(lambda: endpoint.wait_for_status("InService", poll=1), FailedStatusError)
    check("no weights in here" in str(error), error)
    delete(endpoint)


def serializers(sdk: Sdk) -> None:
    endpoint = sdk.deploy("doubling", SKLEARN)
    for serializer, deserializer, expected in (
        (CSVSerializer(), CSVDeserializer(), [["2.0", "4.0"], ["6.0", "8.0"]]),
        (JSONSerializer(), JSONDeserializer(), [[2.0, 4.0], [6.0, 8.0]]),
        (NumpySerializer(), NumpyDeserializer(), numpy.array([[2.0, 4.0], [6.0, 8.0]])),
    ):
        endpoint.serializer, endpoint.deserializer = serializer, deserializer
        result = endpoint.invoke(
            body=numpy.array([[1.0, 2.0], [3.0, 4.0]]),
            content_type=serializer.CONTENT_TYPE,
            accept=deserializer.ACCEPT[0],
        ).body
        check(numpy.array_equal(result, expected), f"{type(serializer).__name__}: {result!r}")
    delete(endpoint)
    endpoint = sdk.deploy("reversing", HUGGINGFACE)
    endpoint.serializer, endpoint.deserializer = IdentitySerializer(), BytesDeserializer()
    reply = endpoint.invoke(body=bytes(range(256)), content_type="application/octet-stream")
    equal(reply.body, bytes(reversed(range(256))), "bytes")
    delete(endpoint)


def model_error(sdk: Sdk) -> None:
    endpoint = sdk.deploy("reversing", HUGGINGFACE)
    error = failure(lambda: invoke(endpoint, {"raise": "no such column"}), ClientError)
    equal(error.response["Error"]["Code"], "ModelError", "the code")
    check("ValueError: no such column" in error.response["OriginalMessage"], error)
    delete(endpoint)


def asynchronous(sdk: Sdk) -> None:
    paths = {"output_path": f"s3://{sdk.bucket}/out", "failure_path": f"s3://{sdk.bucket}/failed"}
    endpoint = sdk.deploy("reversing", HUGGINGFACE, inference_config=AsyncInferenceConfig(**paths))

    def result_of(document: object, location: str) -> str:
        sent = sdk.session.upload_string_as_file_body(json.dumps(document), sdk.bucket, f"in/{unique()}")
        reply = endpoint.invoke_async(input_location=sent, **ASKED)
        bucket, _, key = getattr(reply, location).removeprefix("s3://").partition("/")
        waiter = boto3.client("s3").get_waiter("object_exists")
        waiter.wait(Bucket=bucket, Key=key, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        return sdk.session.read_s3_file(bucket, key)

    equal(json.loads(result_of({"text": "boats"}, "output_location")), {"text": "staob"}, "the result")
    failed = result_of({"raise": "no such row"}, "failure_location")
    check("ValueError: no such row" in failed, failed)
    delete(endpoint)


def update_endpoint(sdk: Sdk) -> None:
    endpoint = sdk.deploy("doubling", SKLEARN)
    config = EndpointConfig.get(endpoint_config_name=endpoint.endpoint_config_name)
    (variant,) = config.production_variants
    variant.initial_instance_count = 2
    new = EndpointConfig.create(endpoint_config_name=f"sdk-{unique()}", production_variants=[variant])
    endpoint.endpoint_config_name = new.endpoint_config_name
    endpoint.update()
    equal(invoke(endpoint, [[1.0]]), [[2.0]], "during the update")
    endpoint.wait_for_status("InService", poll=1)
    endpoint.refresh()
    equal(endpoint.production_variants[0].current_instance_count, 2, "current_instance_count")
    equal(invoke(endpoint, [[1.0]]), [[2.0]], "after the update")
    delete(endpoint)
    config.delete()


def default_bucket(sdk: Sdk) -> None:
    bucket = f"sdk-default-{unique()}"
    session = Session(boto_session=boto3.Session(region_name=sdk.region), default_bucket=bucket)
    path = sdk.directory / "data.csv"
    path.write_text("1,2\n")
    url = session.upload_data(str(path))
    equal(url, f"s3://{session.default_bucket()}/data/data.csv", "the URL")
    equal(session.read_s3_file(bucket, "data/data.csv"), "1,2\n", "the object")


def role_by_name(sdk: Sdk) -> None:
    found = boto3.client("iam").get_role(RoleName=sdk.role.rpartition("/")[2])
    equal(found["Role"]["Arn"], sdk.role, "the role that the SDK has made")


def logs(sdk: Sdk) -> None:
    """As ModelBuilder waits by itself: with an eye on the log. It would look every 30 seconds."""
    endpoint = sdk.deploy("doubling", SKLEARN)
    described = sdk.session.wait_for_endpoint(endpoint.endpoint_name, live_logging=True)
    equal(described["EndpointStatus"], "InService", "EndpointStatus")
    delete(endpoint)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="conformance-sdk-") as directory:
        run(
            {
                "sdk.deploy.sklearn": sklearn,
                "sdk.deploy.xgboost": xgboost,
                "sdk.deploy.pytorch": pytorch,
                "sdk.deploy.huggingface": huggingface,
                "sdk.deploy.failing": failing,
                "sdk.serializers": serializers,
                "sdk.model-error": model_error,
                "sdk.async": asynchronous,
                "sdk.update-endpoint": update_endpoint,
                "sdk.default-bucket": default_bucket,
                "sdk.role-by-name": role_by_name,
                "sdk.logs": logs,
            },
            Sdk(Path(directory)),
        )
    os._exit(0)  # whatever threads of the SDK are left
