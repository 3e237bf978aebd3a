"""What clients notice of UpdateEndpoint and DeleteEndpoint while they invoke: nothing but the new model."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.conformance.targets import closed, model, unique
from tests.servers import MODELHOST, ROLE, MoorageServer, eventually

THREADS = 8
INSTANCES = 2


@dataclass
class Load:
    """Threads that invoke an endpoint one call after the other, until told to stop."""

    runtime: Any
    endpoint: str
    answers: list[tuple[float, str]] = field(default_factory=list)
    """When the invocation began, and the answer."""
    failures: list[Exception] = field(default_factory=list)
    _stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self._stopped.is_set():
            began = time.monotonic()
            try:
                reply = self.runtime.invoke_endpoint(EndpointName=self.endpoint, Body=b"")
                self.answers.append((began, reply["Body"].read().decode()))
            except Exception as error:
                self.failures.append(error)

    def stop(self) -> None:
        self._stopped.set()

    def wait_for(self, number: int) -> None:
        """Until that many more answers have come, or a failure."""
        enough = len(self.answers) + number
        eventually(lambda: len(self.answers) >= enough or self.failures)


@pytest.fixture(scope="module")
def versions(target: MoorageServer, sagemaker: Any) -> Iterator[Callable[[], str]]:
    """Makes configurations of two instances whose models answer with their configuration's name."""
    url = target.upload(unique("versioned"), model("versioned"))
    made: list[str] = []

    def make() -> str:
        name = unique("version")
        container = {"Image": MODELHOST, "ModelDataUrl": url, "Environment": {"MODEL_VERSION": name}}
        sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)
        variant = {
            "VariantName": "AllTraffic",
            "ModelName": name,
            "InitialInstanceCount": INSTANCES,
            "InstanceType": "ml.m5.large",
        }
        sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
        made.append(name)
        return name

    yield make
    for name in made:
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)


def test_no_invocation_fails_during_an_update(
    target: MoorageServer, sagemaker: Any, versions: Callable[[], str]
) -> None:
    endpoint, old, new = unique("updated"), versions(), versions()
    sagemaker.create_endpoint(EndpointName=endpoint, EndpointConfigName=old)
    assert target.wait_for(endpoint, "InService", "Failed")["EndpointStatus"] == "InService"
    load = Load(target.client("sagemaker-runtime", max_pool_connections=THREADS), endpoint)
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            running = [pool.submit(load.run) for _ in range(THREADS)]
            load.wait_for(5 * THREADS)
            sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=new)
            assert target.wait_for(endpoint, "InService", "Failed")["EndpointConfigName"] == new
            updated = time.monotonic()
            load.wait_for(10 * THREADS)
        finally:
            load.stop()
    for each in running:
        each.result()
    assert load.failures == []
    assert {answer for _, answer in load.answers} == {old, new}
    assert {answer for began, answer in load.answers if began > updated} == {new}
    sagemaker.delete_endpoint(EndpointName=endpoint)


def test_what_is_in_flight_when_an_endpoint_is_deleted_is_answered(
    ours: MoorageServer, sagemaker: Any, runtime: Any, tmp_path: Path
) -> None:
    gate, endpoint = tmp_path / "gate", unique("deleted")
    ours.deploy(endpoint, model("gated"), instances=INSTANCES, environment={"INVOKE_GATE": str(gate)})
    with ThreadPoolExecutor(INSTANCES) as pool:
        with closed(gate):
            inside = [
                pool.submit(runtime.invoke_endpoint, EndpointName=endpoint, Body=b"")
                for _ in range(INSTANCES)
            ]
            eventually(lambda: len(list(tmp_path.glob("gate.*"))) == INSTANCES)
            sagemaker.delete_endpoint(EndpointName=endpoint)
            eventually(lambda: _is_unknown(runtime, endpoint))
            assert not any(call.done() for call in inside)
            assert sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "Deleting"
        instances = {call.result()["Body"].read() for call in inside}
    assert len(instances) == INSTANCES
    waiter = sagemaker.get_waiter("endpoint_deleted")
    waiter.wait(EndpointName=endpoint, WaiterConfig={"Delay": 0.1, "MaxAttempts": 600})


def _is_unknown(runtime: Any, endpoint: str) -> bool:
    """An invocation that still gets in would wait at the gate: so one that is refused by its headers."""
    with pytest.raises(ClientError) as caught:
        runtime.invoke_endpoint(EndpointName=endpoint, Body=b"", TargetVariant="none")
    message = caught.value.response["Error"]["Message"]
    return bool(message.startswith(f"Endpoint {endpoint} of account "))
