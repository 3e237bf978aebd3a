"""Every client of `conformance/`, unmodified SDKs in their own languages, against a real server."""

import os
from collections.abc import Iterator, Mapping

import pytest

from conformance import target
from conformance.behaviours import Outcome, load
from conformance.client import Client, MissingTool
from conformance.run import BEHAVIOURS, clients

# The first time, what a client needs is fetched and built.
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def environment() -> Iterator[Mapping[str, str]]:
    images = {glob: command for client in clients() for glob, command in client.catalogue.items()}
    with target.own_server(images) as environment:
        yield environment


@pytest.mark.parametrize("client", clients(), ids=lambda client: client.id)
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
