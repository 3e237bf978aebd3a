"""The target of the conformance tests, and the endpoints that several of them share."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conformance.targets import URL_VARIABLE, Elsewhere, model, unique
from tests.servers import MODELHOST, ROLE, MoorageServer


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest) -> MoorageServer:
    url = os.environ.get(URL_VARIABLE)
    if url:
        return Elsewhere(url)
    server: MoorageServer = request.getfixturevalue("server")
    return server


@pytest.fixture(scope="session")
def ours(target: MoorageServer) -> MoorageServer:
    """For tests that look at our own server's processes or change its settings."""
    if isinstance(target, Elsewhere):
        pytest.skip(f"needs a server of its own, and {URL_VARIABLE} names another")
    return target


@pytest.fixture(scope="session")
def account_id(target: MoorageServer) -> str:
    return str(target.client("sts").get_caller_identity()["Account"])


@pytest.fixture(scope="session")
def runtime(target: MoorageServer) -> Any:
    return target.client("sagemaker-runtime")


@pytest.fixture(scope="session")
def sagemaker(target: MoorageServer) -> Any:
    return target.client("sagemaker")


@pytest.fixture(scope="session")
def echo(target: MoorageServer, sagemaker: Any) -> Iterator[str]:
    """An endpoint of the model `echo` with two variants: `Main` takes all the traffic, `Other` none."""
    name = unique("echo")
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": MODELHOST, "ModelDataUrl": target.upload(name, model("echo"))},
    )
    variant = {"ModelName": name, "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(
        EndpointConfigName=name,
        ProductionVariants=[
            {"VariantName": "Main", "InitialVariantWeight": 1, **variant},
            {"VariantName": "Other", "InitialVariantWeight": 0, **variant},
        ],
    )
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    assert target.wait_for(name, "InService", "Failed")["EndpointStatus"] == "InService"
    yield name
    sagemaker.delete_endpoint(EndpointName=name)
