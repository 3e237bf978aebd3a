"""What a user of the SageMaker Python SDK writes, for the environment that has it: see `test_sagemaker_sdk`.

Usage: sagemaker_sdk_program.py IMAGE ROLE BUCKET MODEL_URL BROKEN_MODEL_URL

Prints one JSON object: what each step came to. The server is the one that AWS_ENDPOINT_URL names.
"""

import json
import os
import sys

import sagemaker
from sagemaker.async_inference import AsyncInferenceConfig, WaiterConfig
from sagemaker.deserializers import JSONDeserializer, StringDeserializer
from sagemaker.exceptions import (
    AsyncInferenceModelError,
    ObjectNotExistedError,
    PollingTimeoutError,
    UnexpectedStatusException,
)
from sagemaker.model import Model
from sagemaker.predictor import Predictor
from sagemaker.predictor_async import AsyncPredictor
from sagemaker.serializers import JSONSerializer

WAIT = WaiterConfig(max_attempts=60, delay=1)


def main(image, role, bucket, model_url, broken_url):
    # For a default bucket that is not named the SDK asks the STS of AWS, wherever AWS_ENDPOINT_URL leads.
    session = sagemaker.Session(default_bucket=f"{bucket}-default")
    said = {"version": sagemaker.__version__}

    def deploy(name, model_data, **output):
        model = Model(
            image,
            model_data=model_data,
            role=role,
            name=name,
            sagemaker_session=session,
            predictor_cls=Predictor,
        )
        predictor = model.deploy(
            initial_instance_count=1,
            instance_type="ml.m5.large",
            endpoint_name=name,
            async_inference_config=AsyncInferenceConfig(max_concurrent_invocations_per_instance=2, **output),
            wait=False,
        )
        assert isinstance(predictor, AsyncPredictor)
        session.wait_for_endpoint(name, poll=1)
        predictor.serializer = JSONSerializer()
        predictor.deserializer = JSONDeserializer()
        return predictor

    paths = {"output_path": f"s3://{bucket}/out", "failure_path": f"s3://{bucket}/failed"}
    predictor = deploy("sdk", model_url, **paths)
    config = session.boto_session.client("sagemaker").describe_endpoint_config(EndpointConfigName="sdk")
    said["config"] = config["AsyncInferenceConfig"]

    said["predict"] = predictor.predict(data={"text": "boats"}, waiter_config=WAIT)
    said["its input"] = predictor._input_path

    given = f"s3://{bucket}/given/input.json"
    response = predictor.predict_async(
        data={"text": "ships"},
        input_path=given,
        inference_id="mine",
        initial_args={"CustomAttributes": "a=1"},
    )
    said["predict_async"] = [response.output_path, response.failure_path]
    said["get_result, waiting"] = response.get_result(WAIT)
    said["get_result, again"] = response.get_result()
    said["get_result, at once"] = sagemaker.async_inference.AsyncInferenceResponse(
        predictor, response.output_path, response.failure_path
    ).get_result()
    said["predict, from S3"] = predictor.predict(input_path=given, waiter_config=WAIT)

    held = predictor.predict_async(data={"sleep": 3})
    try:
        held.get_result()
    except ObjectNotExistedError as error:
        said["get_result, too early"] = str(error)
    try:
        held.get_result(WaiterConfig(max_attempts=1, delay=1))
    except PollingTimeoutError as error:
        said["get_result, waited in vain"] = str(error)
    said["get_result, in the end"] = held.get_result(WAIT)

    predictor.deserializer = StringDeserializer()  # what a failure object is
    try:
        predictor.predict(data={"raise": "no such column"}, waiter_config=WAIT)
    except AsyncInferenceModelError as error:
        said["predict, failing"] = str(error)
    failing = predictor.predict_async(data={"raise": "no such row"})
    try:
        failing.get_result(WAIT)
    except AsyncInferenceModelError as error:
        said["get_result, failing"] = str(error)
    try:
        failing.get_result()
    except AsyncInferenceModelError as error:
        said["get_result, failed"] = str(error)

    try:
        deploy("broken", broken_url, **paths)
    except UnexpectedStatusException as error:
        said["deploy, failing"] = str(error)

    predictor.delete_model()
    predictor.delete_endpoint()
    session.delete_endpoint("broken")
    for name in ("sdk", "broken"):
        session.boto_session.client("sagemaker").get_waiter("endpoint_deleted").wait(
            EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
    print("\n" + json.dumps(said), flush=True)  # waiting for an endpoint leaves a line unfinished


if __name__ == "__main__":
    main(*sys.argv[1:])
    os._exit(0)  # the SDK's threads go on waiting for objects that never come
