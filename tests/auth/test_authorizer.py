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


# --- Resource-based policies ---------------------------------------------------------------------------

OTHER_ACCOUNT = "444455556666"
SHARED = ENDPOINT.replace(ACCOUNT, OTHER_ACCOUNT)


def attached(*statements: dict[str, Any]) -> Policy:
    document = {"Version": "2012-10-17", "Statement": list(statements)}
    return compile_policy(document, name="r", kind=PolicyKind.RESOURCE)


def to(principal: str, effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return statement(effect, INVOKE, **{"Principal": {"AWS": principal}, **more})


@pytest.mark.parametrize("principal", [ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root", ALICE.arn, "*"])
def test_across_accounts_both_sides_must_allow(principal: str) -> None:
    decides = authorizer(statement(action=INVOKE))
    decides.replace_resource_policies({SHARED: attached(to(principal))})
    assert decides.decide("k", INVOKE, SHARED, Contexts()).allowed
    assert not decides.decide("k", INVOKE, SHARED + "-2", Contexts()).allowed
    assert not decides.decide("k", "sagemaker:InvokeEndpointAsync", SHARED, Contexts()).allowed
    decides.replace({"k": Grants(caller=ALICE)})
    assert not decides.decide("k", INVOKE, SHARED, Contexts()).allowed


def test_within_the_account_the_resource_may_allow_or_deny_alone() -> None:
    decides = Authorizer({"k": Grants(caller=ALICE)})
    decides.replace_resource_policies({ENDPOINT: attached(to(ALICE.arn))})
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed
    decides = authorizer(statement())
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed
    decides.replace_resource_policies({ENDPOINT: attached(to("*", "Deny"))})
    refused = decides.decide("k", INVOKE, ENDPOINT, Contexts())
    assert (refused.allowed, refused.explicit) == (False, True)
    decides.replace_resource_policies({})
    assert decides.decide("k", INVOKE, ENDPOINT, Contexts()).allowed


def test_a_condition_of_the_resource_is_asked_at_each_request() -> None:
    decides = authorizer(statement())
    decides.replace_resource_policies({SHARED: attached(to(ACCOUNT, **from_address("192.0.2.0/24")))})
    for _ in range(2):
        assert decides.decide("k", INVOKE, SHARED, Contexts({"aws:SourceIp": "192.0.2.1"})).allowed
        assert not decides.decide("k", INVOKE, SHARED, Contexts({"aws:SourceIp": "198.51.100.1"})).allowed
    contexts = Contexts()
    assert decides.decide("k", INVOKE, ENDPOINT, contexts).allowed, (
        "another resource's condition does not matter"
    )
    assert contexts.made == 0


def test_a_condition_of_the_resource_on_the_caller_is_kept() -> None:
    decides, contexts = authorizer(statement()), Contexts()
    condition = {"Condition": {"StringEquals": {"aws:PrincipalAccount": ACCOUNT}}}
    decides.replace_resource_policies({SHARED: attached(to("*", **condition))})
    first = decides.decide("k", INVOKE, SHARED, contexts)
    assert first.allowed
    assert decides.decide("k", INVOKE, SHARED, contexts) is first
    assert contexts.made == 0


def test_a_condition_on_the_inference_router_is_never_met() -> None:
    decides = authorizer(statement())
    router = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:inference-router/r"
    condition = {"Condition": {"ArnEquals": {"sagemaker:SourceInferenceRouterArn": router}}}
    decides.replace_resource_policies({SHARED: attached(to(ACCOUNT, **condition))})
    assert not decides.decide("k", INVOKE, SHARED, Contexts()).allowed


@pytest.mark.parametrize("own", [statement(), statement(action="s3:*"), statement("Deny")])
@pytest.mark.parametrize(
    "policies",
    [
        {SHARED: attached(to("*", "Deny"))},
        {SHARED: attached(to(OTHER_ACCOUNT))},
        {SHARED: attached(to(ACCOUNT), to(ALICE.arn, "Deny", **from_address("192.0.2.0/24")))},
    ],
)
def test_a_refused_caller_of_another_account_cannot_tell_whether_there_is_a_policy(
    own: dict[str, Any], policies: dict[str, Policy]
) -> None:
    decides, contexts = authorizer(own), Contexts({"aws:SourceIp": "192.0.2.1"})
    unknown = decides.decide("k", INVOKE, SHARED, contexts)
    decides.replace_resource_policies(policies)
    assert decides.decide("k", INVOKE, SHARED, contexts) == unknown
    assert not unknown.allowed


TAGGED = {"StringEquals": {"aws:ResourceTag/stage": "frozen"}}


def test_a_deny_on_tags_of_the_resource_holds_for_other_accounts_too() -> None:
    decides = authorizer(statement())
    decides.replace_resource_policies({SHARED: attached(to(ACCOUNT), to("*", "Deny", Condition=TAGGED))})
    assert decides.decide("k", INVOKE, SHARED, Contexts()).allowed
    decides.resource_tags[SHARED] = {"stage": "frozen"}
    assert not decides.decide("k", INVOKE, SHARED, Contexts()).allowed
    decides.resource_tags[SHARED] = {"stage": "live"}
    assert decides.decide("k", INVOKE, SHARED, Contexts()).allowed


@pytest.mark.parametrize(
    "own", [statement(), statement("Deny", Condition=TAGGED), statement(Condition=TAGGED)]
)
@pytest.mark.parametrize(
    "policies", [{}, {SHARED: attached(to(OTHER_ACCOUNT))}, {SHARED: attached(to(ALICE.arn, "Deny"))}]
)
def test_a_refused_caller_of_another_account_cannot_tell_what_tags_there_are(
    own: dict[str, Any], policies: dict[str, Policy]
) -> None:
    decides = authorizer(own)
    unknown = decides.decide("k", INVOKE, SHARED, Contexts())
    assert not unknown.allowed
    decides.replace_resource_policies(policies)
    for tags in ({"stage": "frozen"}, {"stage": "live"}):
        decides.resource_tags[SHARED] = tags
        assert decides.decide("k", INVOKE, SHARED, Contexts()) == unknown


def test_sessions_are_still_known_when_resource_policies_change() -> None:
    decides = Authorizer()
    decides.add("session", Grants(caller=ALICE, identity=(policy(statement()),)))
    decides.replace_resource_policies({})
    assert decides.decide("session", INVOKE, ENDPOINT, Contexts()).allowed
    decides.replace_resource_policies({SHARED: attached(to(ACCOUNT))})
    decides.replace({"k": Grants(caller=ALICE, identity=(policy(statement()),))})
    assert decides.decide("k", INVOKE, SHARED, Contexts()).allowed, "new callers, the same resources"


def test_a_resource_without_account_is_the_callers() -> None:
    decides = authorizer(statement())
    assert decides.decide("k", "s3:GetObject", "arn:aws:s3:::bucket/key", Contexts()).allowed
    assert decides.decide("k", "sagemaker:ListEndpoints", "*", Contexts()).allowed
