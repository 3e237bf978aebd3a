"""A container that somebody else makes, from its deployment to its end: what a client of it sees.

Usage: container.py IMAGE. It reverses bytes, and fails at a body `fail`.
"""

import sys
from typing import Any

import boto3
from botocore.exceptions import ClientError

from orders import unique
from report import check, equal, failure, required, run

IMAGE = sys.argv[1]
NAME = f"container-{unique()[:8]}"
GROUP = f"/aws/sagemaker/Endpoints/{NAME}"
KNOWN = "CONFORMANCE_IMAGES"
"""Set where the server knows the images."""
sagemaker, runtime, logs = (boto3.client(name) for name in ("sagemaker", "sagemaker-runtime", "logs"))


def deploy() -> None:
    required(KNOWN)
    sagemaker.create_model(
        ModelName=NAME,
        ExecutionRoleArn=required("CONFORMANCE_ROLE"),
        PrimaryContainer={"Image": IMAGE, "Environment": {"GREETING": "hello from the environment"}},
    )
    variant = {"VariantName": "AllTraffic", "ModelName": NAME, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=NAME, ProductionVariants=[{**variant, "InitialInstanceCount": 1}]
    )
    sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    waiter = sagemaker.get_waiter("endpoint_in_service")
    waiter.wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60})


def call(body: bytes, **members: Any) -> Any:
    required(KNOWN)
    return runtime.invoke_endpoint(
        EndpointName=NAME, Body=body, ContentType="application/octet-stream", **members
    )


def invoke() -> None:
    for body in (b"boats", bytes(range(256)), bytes(1_000_000)):
        reply = call(body)
        equal(reply["Body"].read(), body[::-1], "the body")
        equal(reply["ContentType"].partition(";")[0], "application/octet-stream", "ContentType")


def error() -> None:
    raised = failure(lambda: call(b"fail"), ClientError)
    equal(raised.response["Error"]["Code"], "ModelError", "the code")
    equal(raised.response["OriginalStatusCode"], 500, "OriginalStatusCode")
    equal(call(b"boats")["Body"].read(), b"staob", "the next reply")


def its_logs() -> None:
    required(KNOWN)
    pages = logs.get_paginator("filter_log_events").paginate(logGroupName=GROUP)
    messages = [event["message"] for page in pages for event in page["events"]]
    check(any("hello from the environment" in message for message in messages), messages[-5:])


def delete() -> None:
    required(KNOWN)
    sagemaker.delete_endpoint(EndpointName=NAME)
    waiter = sagemaker.get_waiter("endpoint_deleted")
    waiter.wait(EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
    failure(lambda: call(b"boats"), runtime.exceptions.ValidationError)
    sagemaker.delete_endpoint_config(EndpointConfigName=NAME)
    sagemaker.delete_model(ModelName=NAME)


if __name__ == "__main__":
    run(
        {
            "container.deploy": deploy,
            "container.invoke": invoke,
            "container.error": error,
            "container.logs": its_logs,
            "container.delete": delete,
        }
    )
