"""FilterLogEvents and GetLogEvents, with boto3, on logs as instances write them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from .conftest import ACCOUNT, REGION, Controller

GROUP = "/aws/sagemaker/Endpoints/counter"
FIRST = """[moorage] 2026-01-02T03:04:05Z starting
loading
ready

[moorage] 2026-01-02T03:04:07Z in service
one
an unfinished li"""
SECOND = """[moorage] 2026-01-02T03:04:06Z starting
two
"""
START = 1767323045000
INCARNATION = "20260102T030405.000000Z"


@pytest.fixture
def logs(controller: Controller) -> Iterator[Any]:
    write(controller, "AllTraffic/i-1", FIRST)
    write(controller, "Other/i-2", SECOND)
    client = controller.client("logs")
    yield client
    client.close()


def write(controller: Controller, stream: str, text: str) -> Path:
    path = controller.logs / ACCOUNT / "counter" / INCARNATION / f"{stream}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def messages(reply: Any) -> list[str]:
    return [event["message"].removeprefix("[moorage] ") for event in reply["events"]]


def test_the_events_of_all_streams_are_in_the_order_of_their_times(logs: Any) -> None:
    reply = logs.filter_log_events(logGroupName=GROUP)
    assert messages(reply) == [
        "2026-01-02T03:04:05Z starting",
        "loading",
        "ready",
        "2026-01-02T03:04:06Z starting",
        "two",
        "2026-01-02T03:04:07Z in service",
        "one",
    ]
    assert {event["logStreamName"] for event in reply["events"]} == {"AllTraffic/i-1", "Other/i-2"}
    assert len({event["eventId"] for event in reply["events"]}) == 7
    assert "nextToken" not in reply


def test_a_line_has_the_time_of_the_own_line_before_it(logs: Any) -> None:
    events = logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1")["events"]
    assert [(event["timestamp"] - START) / 1000 for event in events] == [0, 0, 0, 2, 2]
    with pytest.raises(ClientError, match="does not have filterPattern") as caught:
        logs.filter_log_events(logGroupName=GROUP, filterPattern="ERROR")
    assert caught.value.response["Error"]["Code"] == "InvalidParameterException"


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"logStreamNamePrefix": "Other/"}, ["2026-01-02T03:04:06Z starting", "two"]),
        ({"logStreamNames": ["Other/i-2", "Other/i-3"]}, ["2026-01-02T03:04:06Z starting", "two"]),
        ({"startTime": START + 2000}, ["2026-01-02T03:04:07Z in service", "one"]),
        ({"endTime": START + 1}, ["2026-01-02T03:04:05Z starting", "loading", "ready"]),
        ({"logStreamNamePrefix": "Third/"}, []),
    ],
)
def test_streams_and_times_are_chosen(logs: Any, asked: dict[str, Any], expected: list[str]) -> None:
    assert messages(logs.filter_log_events(logGroupName=GROUP, **asked)) == expected


def test_pages_follow_one_another(logs: Any) -> None:
    whole = logs.filter_log_events(logGroupName=GROUP)["events"]
    pages = logs.get_paginator("filter_log_events").paginate(
        logGroupName=GROUP, PaginationConfig={"PageSize": 2}
    )
    sizes, paged = [], []
    for page in pages:
        sizes.append(len(page["events"]))
        paged += page["events"]
    assert sizes == [2, 2, 2, 1]
    assert paged == whole


def test_a_stream_is_read_from_its_end_and_its_head(logs: Any, controller: Controller) -> None:
    asked = {"logGroupName": GROUP, "logStreamName": "AllTraffic/i-1", "limit": 2}
    newest = logs.get_log_events(**asked)
    assert messages(newest) == ["2026-01-02T03:04:07Z in service", "one"]
    earlier = logs.get_log_events(**asked, nextToken=newest["nextBackwardToken"])
    assert messages(earlier) == ["loading", "ready"]
    oldest = logs.get_log_events(**asked, startFromHead=True)
    assert messages(oldest) == ["2026-01-02T03:04:05Z starting", "loading"]
    following = logs.get_log_events(**asked, nextToken=oldest["nextForwardToken"])
    assert messages(following) == ["ready", "2026-01-02T03:04:07Z in service"]

    end = logs.get_log_events(**asked, nextToken=newest["nextForwardToken"])
    assert end["events"] == []
    assert end["nextForwardToken"] == newest["nextForwardToken"]
    write(controller, "AllTraffic/i-1", FIRST + "ne\n")
    assert messages(logs.get_log_events(**asked, nextToken=end["nextForwardToken"])) == ["an unfinished line"]


def test_pages_go_on_over_a_rotation(logs: Any, controller: Controller) -> None:
    asked = {"logGroupName": GROUP, "logStreamName": "AllTraffic/i-1", "limit": 2}
    group = {"logGroupName": GROUP, "limit": 2}
    oldest = logs.get_log_events(**asked, startFromHead=True)
    page = logs.filter_log_events(**group)
    path = controller.logs / ACCOUNT / "counter" / INCARNATION / "AllTraffic/i-1.log"
    path.rename(path.with_name("i-1.log.1"))
    write(controller, "AllTraffic/i-1", "ne\nafter it\n")
    following = logs.get_log_events(**asked, nextToken=oldest["nextForwardToken"])
    assert messages(following) == ["ready", "2026-01-02T03:04:07Z in service"]
    rest = logs.get_log_events(**{**asked, "limit": 9}, nextToken=following["nextForwardToken"])
    assert messages(rest) == ["one", "an unfinished line", "after it"]
    assert messages(logs.get_log_events(**asked, nextToken=rest["nextBackwardToken"])) == messages(following)
    assert messages(logs.filter_log_events(**group, nextToken=page["nextToken"])) == [
        "ready",
        "2026-01-02T03:04:06Z starting",
    ]


def test_many_streams_are_read_a_little_of_each(logs: Any, controller: Controller) -> None:
    line = "y" * 99 + "\n"
    for number in range(80):
        write(controller, f"Many/i-{number:02}", line * 2000)
    events = logs.filter_log_events(logGroupName=GROUP, logStreamNamePrefix="Many/")["events"]
    assert {event["logStreamName"] for event in events} == {f"Many/i-{number:02}" for number in range(10)}
    per_stream = [event["logStreamName"] for event in events].count("Many/i-00")
    assert 1040 < per_stream < 1050


def test_of_a_long_log_the_end_is_read(logs: Any, controller: Controller) -> None:
    write(controller, "AllTraffic/i-1", FIRST + "\n" + "x" * 999_999 + "\n" + ("y" * 99 + "\n") * 41_000)
    events = logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1", startFromHead=True)
    assert {event["message"] for event in events["events"]} == {"y" * 99}


def test_a_group_may_be_given_by_its_arn(logs: Any) -> None:
    arn = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{GROUP}"
    assert len(logs.filter_log_events(logGroupIdentifier=arn)["events"]) == 7


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"logGroupName": "/aws/sagemaker/Endpoints/nobody"}, "ResourceNotFoundException"),
        ({"logGroupName": "/aws/lambda/counter"}, "ResourceNotFoundException"),
        ({"logGroupName": "/aws/sagemaker/Endpoints/../counter"}, "ResourceNotFoundException"),
        ({"logGroupName": GROUP, "logGroupIdentifier": GROUP}, "InvalidParameterException"),
        ({}, "InvalidParameterException"),
        ({"logGroupName": GROUP, "limit": 10001}, "InvalidParameterException"),
        ({"logGroupName": GROUP, "nextToken": "not a token"}, "InvalidParameterException"),
        (
            {"logGroupName": GROUP, "logStreamNames": ["a"], "logStreamNamePrefix": "a"},
            "InvalidParameterException",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(logs: Any, asked: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as caught:
        logs.filter_log_events(**asked)
    assert caught.value.response["Error"]["Code"] == code


def test_a_stream_that_is_not_there_and_a_token_that_is_none_are_refused(logs: Any) -> None:
    with pytest.raises(logs.exceptions.ResourceNotFoundException, match="log stream does not exist"):
        logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-9")
    with pytest.raises(logs.exceptions.InvalidParameterException, match="nextToken is invalid"):
        logs.get_log_events(logGroupName=GROUP, logStreamName="AllTraffic/i-1", nextToken="x/1")
