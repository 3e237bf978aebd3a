"""Every case over HTTP to a controller with a database: its answers as botocore reads them, and what it writes."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.model import OperationModel
from hypothesis import given, note, seed, settings
from hypothesis import strategies as st

from moorage.controller.iam import absent
from tests.model_driven import cases
from tests.model_driven.callers import ControlPlane, Reply, missing
from tests.model_driven.cases import Case
from tests.model_driven.combinations import SEED, documents
from tests.model_driven.completing import complete
from tests.model_driven.conftest import Things
from tests.model_driven.services import decided, models

JSON = models("sagemaker")
QUERY = (*models("iam"), *models("sts"))
SERVED = (*JSON, *QUERY)

pytestmark = pytest.mark.timeout(600)  # thousands of requests, on a machine that may be busy

COMMON = {
    "json": {"ValidationException", "SerializationException"},
    "query": {"ValidationError", "AccessDenied", "PackedPolicyTooLarge"},
}
"""The codes of errors that the models do not list, because any operation may answer with them."""

VAGUE = ("ValidationException", "ValidationError")
"""Codes that tell nothing of the reason."""

REFUSALS = re.compile(
    r"Could not find (model|model package|endpoint|endpoint configuration|resource) "
    r"|ResourcePolicy: "
    r"|Invalid pagination token|Invalid Marker"
    r"|MetricPublishFrequencyInSeconds must be one of"
    r"|With ShadowProductionVariants there must be exactly one"
    r"|ShadowProductionVariants is not supported with ServerlessConfig"
    r"|DeploymentConfig can have BlueGreenUpdatePolicy or RollingUpdatePolicy, not both"
    r"|would have 51 tags|The number of tags has reached the maximum limit: 50"
    r"|Cannot update in-progress endpoint"
    r"|already exists"
    r"|not one that this server knows|is invalid$|exceeds the MaxSessionDuration|was not found|has no policy"
    r"|This server does not have "
    r"|Must specify userName when calling with non-User credentials"
    r"|.* cannot be found"
)
"""Why what the models call valid may be refused all the same: rules of prose, and what is not there."""

NEEDS_PUTTING_BACK = re.compile("AddTags|Delete|Update(User|Endpoint)$")


NEVER_ACCEPTED = (
    "UpdateAccessKey",
    "DeleteAccessKey",
    "GetAccessKeyLastUsed",
    "GetAccessKeyInfo",
    "DeletePolicy",
    "DeletePolicyVersion",
    *(name for name in absent.OPERATIONS if not name.startswith("List")),
    "ListGroupPolicies",
    "ListAttachedGroupPolicies",
)
"""Operations on what has a name of the server's choice, or may not be touched, or is never there."""

OF_ROOT = ("GetUser", "CreateAccessKey")
"""Without members they are about the account's root, who has not the name and the path that the model requires."""

DESCRIBED_BY = {
    "CreateModel": ("DescribeModel", "ModelName"),
    "CreateEndpointConfig": ("DescribeEndpointConfig", "EndpointConfigName"),
}


def named(operation: OperationModel) -> str:
    return str(operation.name)


def codes(operation: OperationModel) -> set[str]:
    """The codes of the errors that an operation may answer with."""
    errors = {shape.metadata.get("error", {}).get("code", shape.name) for shape in operation.error_shapes}
    return errors | COMMON[operation.service_model.metadata["protocol"]]


def call(plane: ControlPlane, case: Case, document: Any) -> Reply:
    """Whatever is asked, it is no error of the server's, one that the model knows, and none after a change."""
    before = plane.writes()
    reply = plane.call(case, document)
    if reply.status != 200:
        assert 400 <= reply.status < 500, (case, reply)
        assert reply.code in codes(case.operation), (case, reply)
        assert plane.writes() == before, f"{case} was refused, and has changed something: {reply}"
    return reply


def sendable(operation: OperationModel) -> list[Case]:
    return [case for case in cases.valid(operation) if case.is_sendable]


@pytest.mark.parametrize("operation", SERVED, ids=named)
def test_what_is_valid_is_answered(plane: ControlPlane, things: Things, operation: OperationModel) -> None:
    things.put_back()
    accepted: set[str] = set()
    for case in sendable(operation):
        if NEEDS_PUTTING_BACK.match(operation.name):
            things.put_back()
        document = complete(case)
        reply = call(plane, case, document)
        if reply.status == 200:
            accepted |= {"", *given_members(document)}
            lacks = missing(operation.output_shape, reply.parsed)
            assert lacks == [] or (document == {} and operation.name in OF_ROOT), (case, lacks)
            if operation.name in DESCRIBED_BY:
                described = describe(plane, operation, document)
                assert differences({**document, "Tags": None}, described) == [], case
        else:
            assert "validation error" not in reply.message, (case, reply)
            assert reply.code not in VAGUE or REFUSALS.search(reply.message), (case, reply)
    assert accepted or operation.name in NEVER_ACCEPTED, "none was accepted"
    if operation in JSON:
        for member, status in decided("sagemaker", operation.name).items():
            if member != "NextToken":  # those that are valid are not made here
                assert (member in accepted) == (status != "refused"), f"{member} should be {status}"


@pytest.mark.parametrize(
    "operation", [each for each in JSON if each.name.startswith(("Create", "Update"))], ids=named
)
@seed(SEED)
@settings(max_examples=50)
@given(data=st.data())
def test_combinations_of_what_is_valid_break_nothing(
    plane: ControlPlane, things: Things, operation: OperationModel, data: st.DataObject
) -> None:
    note(f"MODEL_DRIVEN_SEED={SEED}")
    document = data.draw(documents(operation.input_shape))
    reply = call(plane, Case(operation, (), "valid", document), document)
    assert "validation error" not in reply.message


def given_members(value: Any, path: str = "") -> Iterator[str]:
    """The members that a document has, without those that are null; the keys of maps are among them."""
    if isinstance(value, list):
        for item in value:
            yield from given_members(item, path)
    elif isinstance(value, dict):
        for name in value:
            if value[name] is not None:
                yield f"{path}{name}"
                yield from given_members(value[name], f"{path}{name}.")


def describe(plane: ControlPlane, create: OperationModel, document: Any) -> Any:
    name, member = DESCRIBED_BY[create.name]
    operation = create.service_model.operation_model(name)
    asked = {member: document[member]}
    return call(plane, Case(operation, (), "valid", asked), asked).parsed


def differences(sent: Any, described: Any, path: str = "") -> list[str]:
    """The paths at which what was sent is not in what is described."""
    if sent is None:
        return []
    if isinstance(sent, dict) and isinstance(described, dict):
        return [each for key in sent for each in differences(sent[key], described.get(key), f"{path}.{key}")]
    if isinstance(sent, list) and isinstance(described, list) and len(sent) == len(described):
        pairs = zip(sent, described, strict=True)
        return [each for one, other in pairs for each in differences(one, other, f"{path}[]")]
    return [] if sent == described else [f"{path}: {sent!r}, not {described!r}"]


@pytest.mark.parametrize("operation", SERVED, ids=named)
def test_what_is_invalid_is_refused(plane: ControlPlane, operation: OperationModel) -> None:
    code = {"json": "ValidationException", "query": "ValidationError"}
    for case in cases.invalid(operation):
        if case.is_sendable:
            reply = call(plane, case, case.document)
            assert (reply.status, reply.code) == (400, code[operation.service_model.metadata["protocol"]]), (
                case
            )
            assert f"at '{case.where}' failed to satisfy constraint: " in reply.message, (case, reply)
            assert case.rule in reply.message, (case, reply)


@pytest.mark.parametrize("operation", SERVED, ids=named)
def test_what_is_of_another_type_is_refused(plane: ControlPlane, operation: OperationModel) -> None:
    code = {"json": "SerializationException", "query": "ValidationError"}
    for case in cases.mistyped(operation):
        reply = call(plane, case, case.document)
        assert (reply.status, reply.code) == (400, code[operation.service_model.metadata["protocol"]]), case
