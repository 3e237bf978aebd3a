"""The cache of decisions: what may be kept, and what must be asked anew."""

from collections.abc import Mapping
from typing import Any

import pytest

from moorage.auth import authorizer as module
from moorage.auth.authorizer import Authorizer, Grants
from moorage.auth.policy import Caller, CallerKind, Policy, PolicyKind, compile_policy

ACCOUNT = "111122223333"
INVOKE = "sagemaker:InvokeEndpoint"
ENDPOINT = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/prod-a"
ALICE = Caller(
    arn=f"arn:aws:iam::{ACCOUNT}:user/alice",
    account_id=ACCOUNT,
    kind=CallerKind.USER,
    user_id="AIDAALICE",
    user_name="alice",
    tags={"team": "prod"},
)


class Contexts:
    """Makes contexts, and counts them."""

    def __init__(self, context: Mapping[str, str] | None = None) -> None:
        self.made = 0
        self.context = dict(context or {})

    def __call__(self) -> Mapping[str, str]:
        self.made += 1
        return self.context


def policy(*statements: dict[str, Any]) -> Policy:
    return compile_policy(
        {"Version": "2012-10-17", "Statement": list(statements)}, name="p", kind=PolicyKind.IDENTITY
    )


def statement(effect: str = "Allow", action: str = "*", resource: str = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def authorizer(*statements: dict[str, Any], **grants: Any) -> Authorizer:
    return Authorizer({"k": Grants(caller=ALICE, identity=(policy(*statements),), **grants)})


def from_address(address: str) -> dict[str, Any]:
    return {"Condition": {"IpAddress": {"aws:SourceIp": address}}}


def test_a_decision_without_conditions_is_kept_and_needs_no_context() -> None:
    decides, contexts = authorizer(statement()), Contexts()
    first = decides.decide("k", INVOKE, ENDPOINT, contexts)
    assert first.allowed
    assert decides.decide("k", INVOKE, ENDPOINT, contexts) is first
    assert contexts.made == 0


def test_a_denial_is_kept_too() -> None:
    decides, contexts = authorizer(statement(action="s3:*")), Contexts()
    first = decides.decide("k", INVOKE, ENDPOINT, contexts)
    assert not first.allowed
    assert decides.decide("k", INVOKE, ENDPOINT, contexts) is first


def test_a_decision_with_a_condition_is_made_for_each_request() -> None:
    decides = authorizer(statement(**from_address("192.0.2.0/24")))
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts({"aws:SourceIp": "192.0.2.1"})).allowed
    assert not decides.decide("k", INVOKE, ENDPOINT, Contexts({"aws:SourceIp": "198.51.100.1"})).allowed


@pytest.mark.parametrize("where", ["boundary", "session"])
def test_conditions_of_boundary_and_session_count(where: str) -> None:
    limit = policy(statement(), statement("Deny", **from_address("198.51.100.0/24")))
    decides = authorizer(statement(), **{where: limit if where == "boundary" else (limit,)})
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts({"aws:SourceIp": "192.0.2.1"})).allowed
    assert not decides.decide("k", INVOKE, ENDPOINT, Contexts({"aws:SourceIp": "198.51.100.1"})).allowed


def test_a_variable_of_the_request_is_a_condition() -> None:
    decides = authorizer(statement(resource=f"{ENDPOINT[:-6]}${{x:stage}}-*"))
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts({"x:stage": "prod"})).allowed
    assert not decides.decide("k", INVOKE, ENDPOINT, Contexts({"x:stage": "test"})).allowed


def test_conditions_on_other_actions_do_not_matter() -> None:
    decides, contexts = (
        authorizer(statement(), statement("Deny", "s3:*", **from_address("192.0.2.0/24"))),
        Contexts(),
    )
    assert decides.decide("k", INVOKE, ENDPOINT, contexts).allowed
    assert contexts.made == 0


def test_what_depends_on_the_caller_only_is_kept() -> None:
    condition = {"Condition": {"StringEquals": {"aws:PrincipalTag/team": "prod"}}}
    decides = authorizer(statement(resource=f"{ENDPOINT[:-6]}${{aws:PrincipalTag/team}}-*", **condition))
    contexts = Contexts({"aws:PrincipalTag/team": "other"})
    first = decides.decide("k", INVOKE, ENDPOINT, contexts)
    assert first.allowed
    assert decides.decide("k", INVOKE, ENDPOINT, contexts) is first
    assert contexts.made == 0


def test_replace_drops_what_is_kept() -> None:
    decides = authorizer(statement())
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed
    decides.replace({"k": Grants(caller=ALICE)})
    assert not decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed
    decides.replace({})
    assert not decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed


def test_a_caller_is_known_from_add_to_remove() -> None:
    decides = authorizer(statement())
    assert not decides.decide("session", INVOKE, ENDPOINT, Contexts()).allowed
    decides.add("session", Grants(caller=ALICE, identity=(policy(statement()),)))
    assert decides.decide("session", INVOKE, ENDPOINT, Contexts()).allowed
    decides.remove(["session", "nobody"])
    assert not decides.decide("session", INVOKE, ENDPOINT, Contexts()).allowed
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed


def test_adding_a_caller_again_changes_what_it_may_do() -> None:
    decides = authorizer(statement())
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed
    decides.add("k", Grants(caller=ALICE))
    assert not decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed


def test_replacing_while_a_context_is_made_keeps_nothing_old() -> None:
    decides = authorizer(statement(**from_address("192.0.2.0/24")))

    def context() -> Mapping[str, str]:
        decides.replace({"k": Grants(caller=ALICE)})
        return {"aws:SourceIp": "192.0.2.1"}

    assert decides.decide("k", INVOKE, ENDPOINT, context).allowed
    assert not decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_DECISIONS", 8)
    decides = authorizer(statement())
    first = decides.decide("k", INVOKE, ENDPOINT, Contexts())
    for number in range(8):
        assert decides.decide("k", INVOKE, f"{ENDPOINT}{number}", Contexts()).allowed
    again = decides.decide("k", INVOKE, ENDPOINT, Contexts())
    assert again == first
    assert again is not first


def test_a_resource_of_another_account_needs_its_own_policy() -> None:
    decides = authorizer(statement())
    other = ENDPOINT.replace(ACCOUNT, "444455556666")
    assert not decides.decide("k", INVOKE, other, Contexts()).allowed


def test_a_resource_without_account_is_the_callers() -> None:
    decides = authorizer(statement())
    assert decides.decide("k", "s3:GetObject", "arn:aws:s3:::bucket/key", Contexts()).allowed
    assert decides.decide("k", "sagemaker:ListEndpoints", "*", Contexts()).allowed
