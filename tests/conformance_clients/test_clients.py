"""The clients of `conformance/`, unmodified SDKs in their own languages, against a real server.

Those whose installation is heavy run too where CONFORMANCE_ALL is set; `make conformance` has them always.
"""

import os
from collections.abc import Iterator, Mapping

import pytest

from conformance import target
from conformance.behaviours import Outcome, load
from conformance.client import Client, MissingTool
from conformance.run import BEHAVIOURS, clients

CLIENTS = [client for client in clients() if not client.heavy or os.environ.get("CONFORMANCE_ALL")]

# The first time, what a client needs is fetched and built.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    images = {glob: command for client in CLIENTS for glob, command in client.catalogue.items()}
    with target.own_server(images) as environment:
        yield environment


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.id)
def test_a_client_sees_what_it_should(client: Client, environment: Mapping[str, str]) -> None:
    try:
        client.check_tools()
    except MissingTool as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"{error}: conformance/install.sh gets it")
    client.ensure_installed()
    column = client.call(environment, load(BEHAVIOURS))
    wrong = {
        behaviour: cell.detail
        for behaviour, cell in column.items()
        if cell.outcome in (Outcome.FAILED, Outcome.SKIPPED)
    }
    assert wrong == {}, client.log.read_text()[-4000:]
    assert Outcome.PASSED in {cell.outcome for cell in column.values()}
