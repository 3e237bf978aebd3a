"""The decisions on what is served: there is one for all that botocore knows, and they are true."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moorage.cli.api_coverage import UNDECIDED, Entry, coverage, markdown, read_decisions, superfluous
from moorage.controller.operations import OPERATIONS
from moorage.wire import invocation

PAGE = Path(__file__).parents[2] / "docs" / "api-coverage.md"
ENTRIES = list(coverage(read_decisions()))


def shown(entry: Entry) -> str:
    return f"{entry.service} {entry.operation} {entry.side} {entry.member}"


def test_everything_that_botocore_knows_is_decided() -> None:
    undecided = [shown(entry) for entry in ENTRIES if entry.status == UNDECIDED]
    assert not undecided, "decide on them in src/moorage/cli/api_coverage.toml"


def test_every_decision_is_on_something_that_botocore_has() -> None:
    assert superfluous(read_decisions()) == []


def test_statuses_are_those_that_the_page_explains() -> None:
    for entry in ENTRIES:
        known = {"works", "stored", "refused"} if entry.side != "output" else {"works", "absent"}
        assert entry.status in known, shown(entry)


def test_a_member_of_a_request_that_works_says_so_for_each_below_it() -> None:
    """What a new botocore brings below it must not count as working."""
    inherited = [
        shown(entry)
        for entry in ENTRIES
        if entry.side == "input" and entry.inherited and entry.status == "works"
    ]
    assert inherited == []


def test_the_operations_that_are_served_are_those_that_are_not_refused() -> None:
    served = {
        entry.operation
        for entry in ENTRIES
        if entry.service == "sagemaker" and not entry.member and entry.status != "refused"
    }
    assert served == set(OPERATIONS)


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("InvokeEndpoint", invocation.INVOKE_ENDPOINT),
        ("InvokeEndpointWithResponseStream", invocation.INVOKE_ENDPOINT_WITH_RESPONSE_STREAM),
        ("InvokeEndpointAsync", invocation.INVOKE_ENDPOINT_ASYNC),
    ],
)
def test_the_members_of_invocations_are_those_that_are_read(operation: str, members: Any) -> None:
    decided = {entry.member for entry in ENTRIES if entry.operation == operation and entry.side == "input"}
    assert decided == {"EndpointName", "Body", *(member.name for member in members)}


def test_what_nobody_has_decided_on_is_shown_as_such() -> None:
    decisions = copy.deepcopy(dict(read_decisions()))
    del decisions["sagemaker"]["ListTags"]
    del decisions["sagemaker"]["CreateModel"]["input"]["PrimaryContainer.Image"]
    del decisions["sagemaker"]["CreateModel"]["input"]["VpcConfig"]
    found = list(coverage(decisions))
    undecided = {(entry.operation, entry.member) for entry in found if entry.status == UNDECIDED}
    assert undecided == {
        ("ListTags", ""),
        ("CreateModel", "PrimaryContainer.Image"),
        ("CreateModel", "VpcConfig"),
        ("CreateModel", "VpcConfig.SecurityGroupIds"),
        ("CreateModel", "VpcConfig.Subnets"),
    }
    page = markdown(found)
    assert "### ListTags: undecided\n" in page
    assert "| input | VpcConfig | undecided |  |" in page


def test_a_decision_on_what_is_not_there_is_found() -> None:
    decisions = copy.deepcopy(dict(read_decisions()))
    decisions["sagemaker"]["CreateTea"] = {"decision": "works"}
    decisions["sagemaker"]["CreateModel"]["input"]["Milk"] = "works"
    decisions["sagemaker"]["DeleteInferenceRouter"]["input"] = {"Milk": "works"}
    assert sorted(superfluous(decisions)) == [
        "sagemaker CreateModel input Milk",
        "sagemaker CreateTea  ",
        "sagemaker DeleteInferenceRouter input Milk",
    ]


def run(*arguments: str) -> str:
    command = [sys.executable, "-m", "moorage", "api-coverage", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_the_page_is_what_the_command_prints() -> None:
    assert PAGE.read_text() == run(), "moorage api-coverage > docs/api-coverage.md"


def test_json_has_every_member() -> None:
    printed = json.loads(run("--json"))
    assert printed["botocore"]
    assert len(printed["entries"]) == len(ENTRIES)
    stored = {entry["member"] for entry in printed["entries"] if entry["status"] == "stored"}
    assert {"VpcConfig", "VpcConfig.Subnets"} <= stored
