"""The SageMaker Python SDK v2 as a client: its models, predictors, serializers and waiters.

For a default bucket without a name, and for an account id, it asks the STS of AWS, wherever AWS_ENDPOINT_URL leads:
so the bucket has a name here.
"""

# First, because the SDK prints when it is imported.
from report import check, equal, failure, required, run

# isort: split
import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import boto3
import numpy
import sagemaker
from botocore.exceptions import ClientError
from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.deserializers import (
    BytesDeserializer,
    CSVDeserializer,
    JSONDeserializer,
    NumpyDeserializer,
    StringDeserializer,
)
from sagemaker.exceptions import AsyncInferenceModelError, UnexpectedStatusException
from sagemaker.huggingface import HuggingFaceModel
from sagemaker.iterators import LineIterator
from sagemaker.predictor import Predictor
from sagemaker.pytorch import PyTorchModel
from sagemaker.serializers import CSVSerializer, IdentitySerializer, JSONSerializer, NumpySerializer
from sagemaker.sklearn import SKLearnModel
from sagemaker.xgboost import XGBoostModel

from orders import unique
from sagemaker_models import BROKEN, DOUBLING, FACTOR, REVERSING

WAIT = WaiterConfig(max_attempts=60, delay=1)


class Sdk:
    """A session with a bucket of its own, and what is deployed in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.bucket = f"sdk-{unique()}"
        self.session = sagemaker.Session(default_bucket=self.bucket)
        self.role = required("CONFORMANCE_ROLE")
        for name, text in (("doubling", DOUBLING), ("reversing", REVERSING), ("broken", BROKEN)):
            (directory / f"{name}.py").write_text(text)

    def model_data(self) -> str:
        """The URL of a model.tar.gz with the factor."""
        archive = self.directory / "model.tar.gz"
        with tarfile.open(archive, "w:gz") as file:
            entry = tarfile.TarInfo("factor.txt")
            entry.size = len(FACTOR)
            file.addfile(entry, io.BytesIO(FACTOR.encode()))
        return self.session.upload_data(str(archive), key_prefix=f"models/{unique()}")

    def model(self, kind: type[Any], script: str, **members: Any) -> Any:
        return kind(
            model_data=self.model_data(),
            role=members.pop("role", self.role),
            entry_point=str(self.directory / f"{script}.py"),
            sagemaker_session=self.session,
            **members,
        )

    def deploy(self, model: Any, **options: Any) -> Any:
        """Deployed, and in service. By itself the SDK looks every 30 seconds."""
        predictor = model.deploy(initial_instance_count=1, instance_type="ml.m5.large", wait=False, **options)
        self.session.wait_for_endpoint(predictor.endpoint_name, poll=1)
        return predictor

    def reversing(self, **options: Any) -> Any:
        model = self.model(
            HuggingFaceModel,
            "reversing",
            transformers_version="4.37",
            pytorch_version="2.1",
            py_version="py310",
        )
        return self.deploy(model, **options)

    def doubling(self) -> Any:
        return self.deploy(self.model(SKLearnModel, "doubling", framework_version="1.2-1"))


def delete(predictor: Any) -> None:
    name = predictor.endpoint_name
    predictor.delete_model()
    predictor.delete_endpoint()
    client = boto3.client("sagemaker")
    client.get_waiter("endpoint_deleted").wait(
        EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    failure(lambda: client.describe_endpoint_config(EndpointConfigName=name), ClientError)


def sklearn(sdk: Sdk) -> None:
    predictor = sdk.doubling()
    equal(predictor.predict(numpy.array([[1.0, 2.0]])).tolist(), [[2.0, 4.0]], "the prediction")
    delete(predictor)


def xgboost(sdk: Sdk) -> None:
    predictor = sdk.deploy(sdk.model(XGBoostModel, "reversing", framework_version="1.7-1"))
    predictor.serializer, predictor.deserializer = JSONSerializer(), JSONDeserializer()
    equal(predictor.predict({"text": "boats"}), {"text": "staob"}, "the prediction")
    delete(predictor)


def pytorch(sdk: Sdk) -> None:
    predictor = sdk.deploy(sdk.model(PyTorchModel, "doubling", framework_version="2.3", py_version="py311"))
    equal(predictor.predict(numpy.array([[1.0, 2.0]])).tolist(), [[2.0, 4.0]], "the prediction")
    delete(predictor)


def huggingface(sdk: Sdk) -> None:
    predictor = sdk.reversing()
    equal(predictor.predict({"text": "boats"}), {"text": "staob"}, "the prediction")
    delete(predictor)


def failing(sdk: Sdk) -> None:
    model = sdk.model(SKLearnModel, "broken", framework_version="1.2-1")
    name = f"broken-{unique()}"
    error = failure(lambda: sdk.deploy(model, endpoint_name=name), UnexpectedStatusException)
    check("no weights in here" in str(error), error)
    delete(Predictor(name, sdk.session))


def serializers(sdk: Sdk) -> None:
    predictor = sdk.doubling()
    for serializer, deserializer, expected in (
        (CSVSerializer(), CSVDeserializer(), [["2.0", "4.0"], ["6.0", "8.0"]]),
        (JSONSerializer(), JSONDeserializer(), [[2.0, 4.0], [6.0, 8.0]]),
        (NumpySerializer(), NumpyDeserializer(), numpy.array([[2.0, 4.0], [6.0, 8.0]])),
    ):
        predictor.serializer, predictor.deserializer = serializer, deserializer
        result = predictor.predict(numpy.array([[1.0, 2.0], [3.0, 4.0]]))
        check(numpy.array_equal(result, expected), f"{type(serializer).__name__}: {result!r}")
    delete(predictor)
    predictor = sdk.reversing()
    predictor.serializer = IdentitySerializer("application/octet-stream")
    predictor.deserializer = BytesDeserializer()
    equal(predictor.predict(bytes(range(256))), bytes(reversed(range(256))), "bytes")
    delete(predictor)


def model_error(sdk: Sdk) -> None:
    predictor = sdk.reversing()
    error = failure(lambda: predictor.predict({"raise": "no such column"}), ClientError)
    equal(error.response["Error"]["Code"], "ModelError", "the code")
    check("no such column" in error.response["OriginalMessage"], error)
    delete(predictor)


def stream(sdk: Sdk) -> None:
    predictor = sdk.reversing()
    parts = b"".join(predictor.predict_stream({"count": 100}))
    equal(parts.decode(), "".join(f"{number}\n" for number in range(100)), "the parts")
    lines = predictor.predict_stream({"count": 3}, iterator=LineIterator)
    equal(list(lines), [b"0", b"1", b"2"], "the lines")
    delete(predictor)


def asynchronous(sdk: Sdk) -> None:
    predictor = sdk.reversing(async_inference_config=AsyncInferenceConfig())
    equal(predictor.predict({"text": "boats"}, waiter_config=WAIT), {"text": "staob"}, "predict")
    response = predictor.predict_async({"text": "ships"})
    check(response.output_path.startswith(f"s3://{sdk.bucket}/async-endpoint-outputs/"), response.output_path)
    equal(response.get_result(WAIT), {"text": "spihs"}, "predict_async")
    predictor.predictor.deserializer = predictor.deserializer = StringDeserializer()
    failed = predictor.predict_async({"raise": "no such row"})
    error = failure(lambda: failed.get_result(WAIT), AsyncInferenceModelError)
    check("no such row" in str(error), error)
    delete(predictor)


def update_endpoint(sdk: Sdk) -> None:
    predictor = sdk.doubling()
    before = predictor.predict(numpy.array([[1.0]])).tolist()
    predictor.update_endpoint(initial_instance_count=2, instance_type="ml.m5.large", wait=False)
    equal(predictor.predict(numpy.array([[1.0]])).tolist(), before, "during the update")
    described = sdk.session.wait_for_endpoint(predictor.endpoint_name, poll=1)
    equal(described["ProductionVariants"][0]["CurrentInstanceCount"], 2, "CurrentInstanceCount")
    check(described["EndpointConfigName"] != predictor.endpoint_name, "the configuration is the old one")
    equal(predictor.predict(numpy.array([[1.0]])).tolist(), before, "after the update")
    predictor.delete_model()
    predictor.delete_endpoint()


def default_bucket(sdk: Sdk) -> None:
    session = sagemaker.Session(default_bucket=f"sdk-default-{unique()}")
    path = sdk.directory / "data.csv"
    path.write_text("1,2\n")
    url = session.upload_data(str(path))
    equal(url, f"s3://{session.default_bucket()}/data/data.csv", "the URL")
    equal(session.read_s3_file(session.default_bucket(), "data/data.csv"), "1,2\n", "the object")


def role_by_name(sdk: Sdk) -> None:
    name, iam = f"sdk-{unique()}", boto3.client("iam")
    trust = (
        '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",'
        ' "Principal": {"Service": "sagemaker.amazonaws.com"}}]}'
    )
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    reads = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
    iam.put_role_policy(RoleName=name, PolicyName="models", PolicyDocument=reads)
    model = sdk.model(SKLearnModel, "doubling", framework_version="1.2-1", role=name)
    predictor = sdk.deploy(model)
    described = boto3.client("sagemaker").describe_model(ModelName=model.name)
    equal(described["ExecutionRoleArn"], arn, "ExecutionRoleArn")
    delete(predictor)
    iam.delete_role_policy(RoleName=name, PolicyName="models")
    iam.delete_role(RoleName=name)


def logs(sdk: Sdk) -> None:
    """As deploy(endpoint_logging=True) waits: with an eye on the log. It would look every 30 seconds."""
    predictor = sdk.doubling()
    described = sdk.session.wait_for_endpoint(predictor.endpoint_name, live_logging=True)
    equal(described["EndpointStatus"], "InService", "EndpointStatus")
    delete(predictor)


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
                "sdk.stream": stream,
                "sdk.async": asynchronous,
                "sdk.update-endpoint": update_endpoint,
                "sdk.default-bucket": default_bucket,
                "sdk.role-by-name": role_by_name,
                "sdk.logs": logs,
            },
            Sdk(Path(directory)),
        )
    os._exit(0)  # the SDK's threads go on waiting for objects that never come
