"""One controller for all the cases of a module, with a database, and what its cases name."""

import json
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from moorage.resources import Endpoint, EndpointStatus
from tests.controller.conftest import ACCOUNT, Controller, serve
from tests.model_driven.callers import ControlPlane, control_plane
from tests.model_driven.completing import CONFIG, ENDPOINT, MODEL, ROLE, TRUST, USER


class Things:
    """A model, a configuration, an endpoint in service, a user and a role: what the cases name."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        sagemaker, iam = controller.client(), controller.client("iam")
        self.clients = (sagemaker, iam)
        image = {"Image": "registry/image:1"}
        variant = {"VariantName": "v", "ModelName": MODEL, "InitialInstanceCount": 1}
        variants = [{**variant, "InstanceType": "ml.m5.large"}]
        self._makers = [
            lambda: sagemaker.create_model(ModelName=MODEL, PrimaryContainer=image),
            lambda: sagemaker.create_endpoint_config(EndpointConfigName=CONFIG, ProductionVariants=variants),
            lambda: sagemaker.create_endpoint(EndpointName=ENDPOINT, EndpointConfigName=CONFIG),
            lambda: iam.create_user(UserName=USER),
            lambda: iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(TRUST)),
        ]

    def put_back(self) -> None:
        """Make again what has been deleted or renamed, and take the tags off the model."""
        for make in self._makers:
            try:
                make()
            except ClientError as error:
                assert "already exist" in str(error), error
        sagemaker, _ = self.clients
        arn = sagemaker.describe_model(ModelName=MODEL)["ModelArn"]
        if tags := sagemaker.list_tags(ResourceArn=arn)["Tags"]:
            sagemaker.delete_tags(ResourceArn=arn, TagKeys=[tag["Key"] for tag in tags])
        store = self._controller.store
        endpoint = self._controller.run(store.get(Endpoint, ACCOUNT, ENDPOINT))
        ready = store.transition(endpoint, list(EndpointStatus), status=EndpointStatus.IN_SERVICE)
        self._controller.run(ready)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Controller]:
    folder = tmp_path_factory.mktemp("model-driven")
    yield from serve(Controller(folder), f"sqlite+aiosqlite:///{folder / 'moorage.db'}")


@pytest.fixture(scope="module")
def things(running: Controller) -> Iterator[Things]:
    made = Things(running)
    yield made
    for client in made.clients:
        client.close()


@pytest.fixture(scope="module")
def plane(running: Controller) -> Iterator[ControlPlane]:
    folder = running.folder
    with control_plane(running.url, [folder / "moorage.db", folder / "identities.db"]) as plane:
        yield plane
