"""IAM's evaluation logic, rule by rule. Every case names the page of the IAM User Guide that its rule is from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moorage.auth.policy import (
    Caller,
    CallerKind,
    Decision,
    Policy,
    PolicyError,
    PolicyKind,
    Request,
    Source,
    caller_context,
    compile_policy,
    denial_message,
    evaluate,
)

ACCOUNT, OTHER_ACCOUNT = "111122223333", "444455556666"
INVOKE = "sagemaker:InvokeEndpoint"
ENDPOINT = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/prod-a"

ALICE = Caller(
    arn=f"arn:aws:iam::{ACCOUNT}:user/alice",
    account_id=ACCOUNT,
    kind=CallerKind.USER,
    user_id="AIDAALICE",
    user_name="alice",
    tags={"team": "blue", "empty": ""},
)
BOB = Caller(
    arn=f"arn:aws:iam::{ACCOUNT}:user/bob",
    account_id=ACCOUNT,
    kind=CallerKind.USER,
    user_id="AIDABOB",
    user_name="bob",
)
ROOT = Caller(arn=f"arn:aws:iam::{ACCOUNT}:root", account_id=ACCOUNT, kind=CallerKind.ROOT, user_id=ACCOUNT)
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/apps/scorer"
SESSION = Caller(
    arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/scorer/nightly",
    account_id=ACCOUNT,
    kind=CallerKind.ASSUMED_ROLE,
    user_id="AROASCORER:nightly",
    role_name="scorer",
    session_name="nightly",
    entity_arn=ROLE_ARN,
)
FEDERATED = Caller(
    arn=f"arn:aws:sts::{ACCOUNT}:federated-user/carol",
    account_id=ACCOUNT,
    kind=CallerKind.FEDERATED_USER,
    user_id=f"{ACCOUNT}:carol",
    user_name="alice",
)
STRANGER = Caller(
    arn=f"arn:aws:iam::{OTHER_ACCOUNT}:user/zoe",
    account_id=OTHER_ACCOUNT,
    kind=CallerKind.USER,
    user_id="AIDAZOE",
    user_name="zoe",
)
STRANGE_SESSION = Caller(
    arn=f"arn:aws:sts::{OTHER_ACCOUNT}:assumed-role/visitor/today",
    account_id=OTHER_ACCOUNT,
    kind=CallerKind.ASSUMED_ROLE,
    user_id="AROAVISITOR:today",
    role_name="visitor",
    session_name="today",
)
STRANGE_ROOT = Caller(
    arn=f"arn:aws:iam::{OTHER_ACCOUNT}:root",
    account_id=OTHER_ACCOUNT,
    kind=CallerKind.ROOT,
    user_id=OTHER_ACCOUNT,
)
SERVICE = Caller(
    arn="sagemaker.amazonaws.com", account_id="", kind=CallerKind.SERVICE, user_id="sagemaker.amazonaws.com"
)

ALLOW, IMPLICIT, EXPLICIT = "allowed", "implicitly denied", "explicitly denied"
Element = dict[str, Any]


def allow(action: str | list[str] = "*", resource: str | list[str] = "*", **elements: Any) -> Element:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **elements}


def deny(action: str | list[str] = "*", resource: str | list[str] = "*", **elements: Any) -> Element:
    return {"Effect": "Deny", "Action": action, "Resource": resource, **elements}


def named(principal: object, statement: Element) -> Element:
    return {**statement, "Principal": principal}


def without(element: str, statement: Element) -> Element:
    return {key: value for key, value in statement.items() if key != element}


def trust(principal: object, effect: str = "Allow", **elements: Any) -> Element:
    return {"Effect": effect, "Action": "sts:AssumeRole", "Principal": principal, **elements}


def policy(
    *statements: Element, kind: PolicyKind = PolicyKind.IDENTITY, version: str = "2012-10-17"
) -> Policy:
    return compile_policy({"Version": version, "Statement": list(statements)}, name="p", kind=kind)


@dataclass(frozen=True)
class Case:
    page: str
    rule: str
    expected: str
    identity: list[Element] = field(default_factory=list)
    boundary: list[Element] | None = None
    session: list[Element] | None = None
    resource_policy: list[Element] | None = None
    trust_policy: list[Element] | None = None
    caller: Caller = ALICE
    action: str = INVOKE
    resource: str = ENDPOINT
    context: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    owner: str = ACCOUNT
    version: str = "2012-10-17"

    def decide(self) -> Decision:
        resource = None
        if self.resource_policy is not None:
            resource = policy(*self.resource_policy, kind=PolicyKind.RESOURCE)
        if self.trust_policy is not None:
            resource = policy(*self.trust_policy, kind=PolicyKind.TRUST)
        return evaluate(
            Request(self.action, self.resource, self.caller, self.context),
            identity=[policy(each, version=self.version) for each in self.identity],
            boundary=policy(*self.boundary) if self.boundary else None,
            session=[policy(each) for each in self.session] if self.session is not None else None,
            resource=resource,
            resource_account_id=self.owner,
        )


def outcome(decision: Decision) -> str:
    if decision.allowed:
        return ALLOW
    return EXPLICIT if decision.explicit else IMPLICIT


# --- Policy evaluation logic ---------------------------------------------------------------------------

LOGIC = "Policy evaluation logic"
CROSS = "Cross-account policy evaluation logic"
BOUNDARIES = "Permissions boundaries for IAM entities"
SESSIONS = "Policies and permissions in IAM: Session policies"
PRINCIPAL = "AWS JSON policy elements: Principal"
NOT_PRINCIPAL = "AWS JSON policy elements: NotPrincipal"
USER = {"AWS": ALICE.arn}
ROLE = {"AWS": ROLE_ARN}
THIS_SESSION = {"AWS": SESSION.arn}
WHOLE_ACCOUNT = {"AWS": ACCOUNT}
OTHER_READ = allow("sagemaker:Describe*")
CREATE_ONLY = [allow("sagemaker:CreateModel")]
TRUSTED: dict[str, Any] = {"action": "sts:AssumeRole", "resource": ROLE_ARN}
CROSS_ZOE: dict[str, Any] = {"caller": STRANGER, "identity": [allow()]}
CROSS_SESSION: dict[str, Any] = {"caller": STRANGE_SESSION, "identity": [allow()]}

# fmt: off
LOGIC_CASES = [
    Case(LOGIC, "all requests are implicitly denied by default", IMPLICIT),
    Case(LOGIC, "an explicit allow overrides the default", ALLOW, [allow(INVOKE, ENDPOINT)]),
    Case(LOGIC, "one Allow among several policies is enough", ALLOW, [OTHER_READ, allow(INVOKE)]),
    Case(LOGIC, "policies that allow other actions leave it denied", IMPLICIT, [OTHER_READ]),
    Case(LOGIC, "an explicit deny overrides any allows", EXPLICIT, [allow(), deny(INVOKE)]),
    Case(LOGIC, "… whatever the order", EXPLICIT, [deny(INVOKE), allow()]),
    Case(LOGIC, "a Deny of another action does nothing", ALLOW, [allow(), deny("sagemaker:Delete*")]),
    Case(LOGIC, "a Deny of another resource does nothing", ALLOW, [allow(), deny("*", f"{ENDPOINT}-2")]),
    Case(LOGIC, "a Deny without Allow is still an explicit deny", EXPLICIT, [deny()]),
    Case(LOGIC, "an explicit deny in the boundary", EXPLICIT, [allow()], boundary=[allow(), deny(INVOKE)]),
    Case(LOGIC, "an explicit deny in a session policy", EXPLICIT, [allow()], session=[allow(), deny(INVOKE)],
        caller=SESSION),
    Case(LOGIC, "an explicit deny in a resource-based policy", EXPLICIT, [allow()],
        resource_policy=[named("*", deny())]),
    Case(LOGIC, "an explicit deny in the identity's policy beats the resource's Allow", EXPLICIT, [deny()],
        resource_policy=[named(USER, allow())]),
    Case(LOGIC, "the root user has full access", ALLOW, caller=ROOT),
    Case(LOGIC, "… unless a resource-based policy denies", EXPLICIT, caller=ROOT,
        resource_policy=[named(WHOLE_ACCOUNT, deny())]),
    Case(LOGIC, "… and with a Deny for someone else", ALLOW, caller=ROOT,
        resource_policy=[named(USER, deny())]),
    Case(LOGIC, "an Allow in the resource-based policy alone is enough within the account", ALLOW,
        resource_policy=[named(USER, allow())]),
    Case(LOGIC, "… and an Allow in the identity's alone", ALLOW, [allow()],
        resource_policy=[named({"AWS": BOB.arn}, allow())]),
    Case(LOGIC, "a resource-based policy that names another grants nothing", IMPLICIT,
        resource_policy=[named({"AWS": BOB.arn}, allow())]),
    Case(LOGIC, "an Allow of the role's ARN is enough for its session", ALLOW, caller=SESSION,
        resource_policy=[named(ROLE, allow())]),
    Case(LOGIC, "an Allow of the session's ARN is enough", ALLOW, caller=SESSION,
        resource_policy=[named(THIS_SESSION, allow())]),
    Case(BOUNDARIES, "identity and boundary allow: the intersection", ALLOW, [allow()],
        boundary=[allow(INVOKE)]),
    Case(BOUNDARIES, "the boundary does not allow it", IMPLICIT, [allow()], boundary=CREATE_ONLY),
    Case(BOUNDARIES, "a boundary does not grant anything itself", IMPLICIT, boundary=[allow()]),
    Case(BOUNDARIES, "resource-based: a user's ARN is not limited by an implicit deny in the boundary", ALLOW,
        boundary=CREATE_ONLY, resource_policy=[named(USER, allow())]),
    Case(BOUNDARIES, "resource-based: a role's ARN is limited by the boundary", IMPLICIT, caller=SESSION,
        boundary=CREATE_ONLY, resource_policy=[named(ROLE, allow())]),
    Case(BOUNDARIES, "resource-based: a session's ARN is not limited by the boundary", ALLOW, caller=SESSION,
        boundary=CREATE_ONLY, resource_policy=[named(THIS_SESSION, allow())]),
    Case(BOUNDARIES, "resource-based: an explicit deny in the boundary still decides", EXPLICIT,
        boundary=[deny()], resource_policy=[named(USER, allow())]),
    Case(SESSIONS, "identity and session policies: the intersection", ALLOW, [allow()], session=[allow(INVOKE)],
        caller=SESSION),
    Case(SESSIONS, "the session policy does not allow it", IMPLICIT, [allow()], session=CREATE_ONLY,
        caller=SESSION),
    Case(SESSIONS, "a session policy does not grant anything itself", IMPLICIT, session=[allow()],
        caller=SESSION),
    Case(SESSIONS, "several session policies add up", ALLOW, [allow()], session=[*CREATE_ONLY, allow(INVOKE)],
        caller=SESSION),
    Case(SESSIONS, "no session policy: a role session has all of its role", ALLOW, [allow()], caller=SESSION),
    Case(SESSIONS, "policies that allow nothing are no absence of policies", IMPLICIT, [allow()], session=[],
        caller=SESSION),
    Case(SESSIONS, "resource-based: the role's ARN is limited by the session policy", IMPLICIT, caller=SESSION,
        session=CREATE_ONLY, resource_policy=[named(ROLE, allow())]),
    Case(SESSIONS, "resource-based: the role's ARN, intersected with the session policy", ALLOW, caller=SESSION,
        session=[allow(INVOKE)], resource_policy=[named(ROLE, allow())]),
    Case(SESSIONS, "resource-based: the session's ARN is not limited by the session policy", ALLOW,
        caller=SESSION, session=CREATE_ONLY, resource_policy=[named(THIS_SESSION, allow())]),
    Case(SESSIONS, "identity, boundary and session must all allow", IMPLICIT, [allow()], boundary=CREATE_ONLY,
        session=[allow()], caller=SESSION),
    Case(LOGIC, "a federated user without session policy may do nothing", IMPLICIT, [allow()],
        caller=FEDERATED),
    Case(LOGIC, "a federated user with one has the intersection", ALLOW, [allow()], session=[allow(INVOKE)],
        caller=FEDERATED),
    Case(LOGIC, "resource-based: a federated user's ARN is limited by nothing", ALLOW, caller=FEDERATED,
        session=CREATE_ONLY, resource_policy=[named({"AWS": FEDERATED.arn}, allow())]),
    Case(LOGIC, "resource-based: the ARN of the user who federated is limited by the session policy", IMPLICIT,
        caller=FEDERATED, session=CREATE_ONLY, resource_policy=[named(USER, allow())]),
    Case(CROSS, "both sides allow", ALLOW, **CROSS_ZOE,
        resource_policy=[named({"AWS": STRANGER.arn}, allow())]),
    Case(CROSS, "the resource's side is missing", IMPLICIT, **CROSS_ZOE),
    Case(CROSS, "the resource's side names another", IMPLICIT, **CROSS_ZOE,
        resource_policy=[named(USER, allow())]),
    Case(CROSS, "the identity's side is missing", IMPLICIT, caller=STRANGER,
        resource_policy=[named({"AWS": STRANGER.arn}, allow())]),
    Case(CROSS, "the resource's side may name the whole account", ALLOW, **CROSS_ZOE,
        resource_policy=[named({"AWS": OTHER_ACCOUNT}, allow())]),
    Case(CROSS, "… or everyone", ALLOW, **CROSS_ZOE, resource_policy=[named("*", allow())]),
    Case(PRINCIPAL, "everyone: principals in other accounts need identity-based permissions too", IMPLICIT,
        caller=STRANGER, resource_policy=[named("*", allow())]),
    Case(CROSS, "the boundary limits the identity's side", IMPLICIT, **CROSS_ZOE, boundary=CREATE_ONLY,
        resource_policy=[named({"AWS": STRANGER.arn}, allow())]),
    Case(CROSS, "the session policy limits the identity's side", IMPLICIT, **CROSS_SESSION, session=CREATE_ONLY,
        resource_policy=[named({"AWS": STRANGE_SESSION.arn}, allow())]),
    Case(CROSS, "the resource's side may name the role", ALLOW, **CROSS_SESSION,
        resource_policy=[named({"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:role/visitor"}, allow())]),
    Case(CROSS, "… or the session", ALLOW, **CROSS_SESSION,
        resource_policy=[named({"AWS": STRANGE_SESSION.arn}, allow())]),
    Case(CROSS, "an explicit deny on the resource's side", EXPLICIT, **CROSS_ZOE,
        resource_policy=[named("*", allow()), named({"AWS": STRANGER.arn}, deny())]),
    Case(CROSS, "the root user of another account is nobody here", IMPLICIT, caller=STRANGE_ROOT),
    Case(CROSS, "… unless its account is allowed", ALLOW, caller=STRANGE_ROOT,
        resource_policy=[named({"AWS": OTHER_ACCOUNT}, allow())]),
    # Principal
    Case(PRINCIPAL, "everyone needs no other permissions within the account", ALLOW,
        resource_policy=[named("*", allow())]),
    Case(PRINCIPAL, '{"AWS": "*"} is everyone', ALLOW, resource_policy=[named({"AWS": "*"}, allow())]),
    Case(PRINCIPAL, "everyone with aws:PrincipalArn of a role is not limited by its session policy", ALLOW,
        caller=SESSION, session=CREATE_ONLY,
        resource_policy=[named("*", allow(Condition={"ArnEquals": {"aws:PrincipalArn": ROLE_ARN}}))]),
    Case(PRINCIPAL, "an account delegates: its identities need an Allow of their own", IMPLICIT,
        resource_policy=[named(WHOLE_ACCOUNT, allow())]),
    Case(PRINCIPAL, "… and have it", ALLOW, [allow()], resource_policy=[named(WHOLE_ACCOUNT, allow())]),
    Case(PRINCIPAL, "the account's root ARN behaves the same", EXPLICIT, [allow()],
        resource_policy=[named({"AWS": ROOT.arn}, deny())]),
    Case(PRINCIPAL, "several principals are joined by OR", ALLOW,
        resource_policy=[named({"AWS": [BOB.arn, ALICE.arn]}, allow())]),
    Case(PRINCIPAL, "the statement that names the caller most precisely counts, here the first", ALLOW,
        boundary=CREATE_ONLY, resource_policy=[named(USER, allow()), named(WHOLE_ACCOUNT, allow())]),
    Case(PRINCIPAL, "… and here the last", ALLOW, boundary=CREATE_ONLY,
        resource_policy=[named(WHOLE_ACCOUNT, allow()), named(USER, allow())]),
    Case(PRINCIPAL, "the user name is case-sensitive", IMPLICIT,
        resource_policy=[named({"AWS": f"arn:aws:iam::{ACCOUNT}:user/Alice"}, allow())]),
    Case(PRINCIPAL, "a session principal names one session", IMPLICIT, caller=SESSION,
        resource_policy=[named({"AWS": f"{SESSION.arn}-2"}, allow())]),
    Case(PRINCIPAL, "a role without its path is another role", IMPLICIT, caller=SESSION,
        resource_policy=[named({"AWS": f"arn:aws:iam::{ACCOUNT}:role/scorer"}, allow())]),
    Case(PRINCIPAL, "a service that is named", ALLOW, caller=SERVICE,
        resource_policy=[named({"Service": "sagemaker.amazonaws.com"}, allow())]),
    Case(PRINCIPAL, "a service that is not", IMPLICIT, caller=SERVICE,
        resource_policy=[named({"Service": "s3.amazonaws.com"}, allow())]),
    Case(PRINCIPAL, "a service is in no account", IMPLICIT, caller=SERVICE,
        resource_policy=[named(WHOLE_ACCOUNT, allow())]),
    Case(PRINCIPAL, "a user is no service", IMPLICIT,
        resource_policy=[named({"Service": "sagemaker.amazonaws.com"}, allow())]),
    Case(NOT_PRINCIPAL, "Deny: all but the user named", ALLOW, [allow()],
        resource_policy=[deny(NotPrincipal={"AWS": [ALICE.arn, ROOT.arn]})]),
    Case(NOT_PRINCIPAL, "Deny: the user's account beside it does not exempt others", EXPLICIT, [allow()],
        caller=BOB, resource_policy=[deny(NotPrincipal={"AWS": [ALICE.arn, ROOT.arn]})]),
    Case(NOT_PRINCIPAL, "Deny: … but exempts its root user", ALLOW, caller=ROOT,
        resource_policy=[deny(NotPrincipal={"AWS": [ALICE.arn, ROOT.arn]})]),
    Case(NOT_PRINCIPAL, "Deny: an account alone exempts everyone in it", ALLOW, [allow()],
        resource_policy=[deny(NotPrincipal=WHOLE_ACCOUNT)]),
    Case(NOT_PRINCIPAL, "Deny: … and nobody of another account", EXPLICIT, **CROSS_ZOE,
        resource_policy=[named("*", allow()), deny(NotPrincipal=WHOLE_ACCOUNT)]),
    Case(NOT_PRINCIPAL, "Deny: role and account exempt the role's sessions", ALLOW, [allow()], caller=SESSION,
        resource_policy=[deny(NotPrincipal={"AWS": [ROLE_ARN, ROOT.arn]})]),
    Case(NOT_PRINCIPAL, "Deny: another role's session", EXPLICIT, [allow()], caller=SESSION,
        resource_policy=[deny(NotPrincipal={"AWS": [f"{ROLE_ARN}2", ROOT.arn]})]),
    Case(NOT_PRINCIPAL, "Allow: all but the one named", ALLOW, caller=BOB,
        resource_policy=[allow(NotPrincipal=USER)]),
    Case(NOT_PRINCIPAL, "Allow: the one named", IMPLICIT, resource_policy=[allow(NotPrincipal=USER)]),
    # Trust policies
    Case(LOGIC, "trust: must explicitly allow, also within the account", IMPLICIT, [allow()],
        trust_policy=[trust({"AWS": BOB.arn})], **TRUSTED),
    Case(LOGIC, "trust: naming the user is enough within the account", ALLOW, trust_policy=[trust(USER)],
        **TRUSTED),
    Case(LOGIC, "trust: naming the account needs an Allow in the identity's policy", IMPLICIT,
        trust_policy=[trust(WHOLE_ACCOUNT)], **TRUSTED),
    Case(LOGIC, "trust: … which it has", ALLOW, [allow("sts:AssumeRole", ROLE_ARN)],
        trust_policy=[trust(WHOLE_ACCOUNT)], **TRUSTED),
    Case(LOGIC, "trust: an explicit deny", EXPLICIT, [allow()],
        trust_policy=[trust(USER), trust(USER, "Deny", Condition={"Null": {"sts:ExternalId": "true"}})],
        **TRUSTED),
    Case(LOGIC, "trust: the condition on sts:ExternalId", ALLOW,
        trust_policy=[trust(USER, Condition={"StringEquals": {"sts:ExternalId": "x1"}})],
        context={"sts:ExternalId": "x1"}, **TRUSTED),
    Case(LOGIC, "trust: a service", ALLOW, caller=SERVICE,
        trust_policy=[trust({"Service": "sagemaker.amazonaws.com"})], **TRUSTED),
    Case(LOGIC, "trust: another service", IMPLICIT, caller=SERVICE,
        trust_policy=[trust({"Service": "lambda.amazonaws.com"})], **TRUSTED),
    Case(CROSS, "trust: both sides", ALLOW, **CROSS_ZOE, trust_policy=[trust({"AWS": OTHER_ACCOUNT})],
        **TRUSTED),
    Case(CROSS, "trust: the identity's side is missing", IMPLICIT, caller=STRANGER,
        trust_policy=[trust({"AWS": STRANGER.arn})], **TRUSTED),
    Case(LOGIC, "trust: the root of a trusted account", ALLOW, caller=ROOT, trust_policy=[trust(WHOLE_ACCOUNT)],
        **TRUSTED),
    Case(LOGIC, "trust: the root of an account that is not trusted", IMPLICIT, caller=ROOT,
        trust_policy=[trust({"AWS": BOB.arn})], **TRUSTED),
]
# fmt: on

# --- Actions, resources, variables ---------------------------------------------------------------------

ACTION = "IAM JSON policy elements: Action"
NOT_ACTION = "IAM JSON policy elements: NotAction"
RESOURCE = "IAM JSON policy elements: Resource"
NOT_RESOURCE = "IAM JSON policy elements: NotResource"
VARIABLES = "IAM policy elements: Variables and tags"
VERSION = "IAM JSON policy elements: Version"
HERE = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint"
S3 = "arn:aws:s3:::bucket"


def acting(rule: str, expected: str, pattern: str | list[str], action: str = INVOKE) -> Case:
    return Case(ACTION, rule, expected, [allow(pattern)], action=action)


def on(rule: str, expected: str, pattern: str | list[str], resource: str = ENDPOINT, **more: Any) -> Case:
    return Case(more.pop("page", RESOURCE), rule, expected, [allow("*", pattern)], resource=resource, **more)


def varying(rule: str, expected: str, pattern: str, resource: str, **more: Any) -> Case:
    return on(rule, expected, pattern, resource, page=VARIABLES, **more)


# fmt: off
PATTERN_CASES = [
    acting("a service's prefix and the action's name", ALLOW, INVOKE),
    acting("case-insensitive in the policy", ALLOW, "SageMaker:invokeENDPOINT"),
    acting("case-insensitive in the request", ALLOW, INVOKE, "SAGEMAKER:INVOKEENDPOINT"),
    acting("* is every action", ALLOW, "*"),
    acting("*:* is every action", ALLOW, "*:*"),
    acting("service:* is every action of the service", ALLOW, "sagemaker:*"),
    acting("… and of no other", IMPLICIT, "s3:*"),
    acting("* at the end", ALLOW, "sagemaker:Invoke*"),
    acting("* at the beginning", ALLOW, "sagemaker:*Endpoint"),
    acting("* in the middle", ALLOW, "sagemaker:In*nt"),
    acting("* may be nothing", ALLOW, "sagemaker:InvokeEndpoint*"),
    acting("? is one character", ALLOW, "sagemaker:Invoke?ndpoint"),
    acting("? is not nothing", IMPLICIT, "sagemaker:InvokeEndpoint?"),
    acting("a longer action is another", IMPLICIT, INVOKE, "sagemaker:InvokeEndpointAsync"),
    acting("a list of actions", ALLOW, ["s3:GetObject", INVOKE]),
    acting("wildcards ignore case too", ALLOW, "SAGEMAKER:INVOKE*"),
    Case(NOT_ACTION, "everything except", ALLOW, [{**without("Action", allow()), "NotAction": "iam:*"}]),
    Case(NOT_ACTION, "the exception", IMPLICIT,
        [{**without("Action", allow()), "NotAction": ["iam:*", INVOKE]}]),
    Case(NOT_ACTION, "with Deny", EXPLICIT, [allow(), {**without("Action", deny()), "NotAction": "s3:*"}]),
    Case(NOT_ACTION, "with Deny, the exception", ALLOW,
        [allow(), {**without("Action", deny()), "NotAction": "sagemaker:*"}]),
    on("a whole ARN", ALLOW, ENDPOINT),
    on("another ARN", IMPLICIT, f"{ENDPOINT}b"),
    on("* is every resource", ALLOW, "*"),
    on("* within the resource part", ALLOW, f"{HERE}/prod-*"),
    on("* that does not match", IMPLICIT, f"{HERE}/test-*"),
    on("* in the region", ALLOW, f"arn:aws:sagemaker:*:{ACCOUNT}:endpoint/*"),
    on("* in the account", ALLOW, "arn:aws:sagemaker:eu-west-1:*:endpoint/*"),
    on("* in the partition", ALLOW, f"arn:*:sagemaker:eu-west-1:{ACCOUNT}:endpoint/*"),
    on("? in a segment", ALLOW, f"arn:aws:sagemaker:eu-west-?:{ACCOUNT}:endpoint/prod-?"),
    on("* stays within its segment before the resource part", IMPLICIT, "arn:aws:sagemaker:*:endpoint/prod-a:x",
        resource=f"arn:aws:sagemaker:eu:{ACCOUNT}:endpoint/prod-a"),
    on("segments are checked one by one", IMPLICIT, "arn:aws:sagemaker:eu*3333:*:endpoint/prod-a"),
    on("another account", IMPLICIT, f"arn:aws:sagemaker:eu-west-1:{OTHER_ACCOUNT}:endpoint/*"),
    on("resources are case-sensitive", IMPLICIT, f"{HERE}/PROD-*"),
    on("a list of resources", ALLOW, [f"{HERE}/other", ENDPOINT]),
    on("* takes in slashes", ALLOW, f"{S3}/*/test/*", f"{S3}/1/2/test/3/object.jpg"),
    on("… repeated ones", ALLOW, f"{S3}/*/test/*", f"{S3}/1///test///object.jpg"),
    on("… and may be empty", ALLOW, f"{S3}/*/test/*", f"{S3}//test/object.jpg"),
    on("… at the end too", ALLOW, f"{S3}/*/test/*", f"{S3}/1/test/"),
    on("but the text around it must be there", IMPLICIT, f"{S3}/*/test/*", f"{S3}/test/object.jpg"),
    on("… exactly", IMPLICIT, f"{S3}/*/test/*", f"{S3}/1-test/object.jpg"),
    on("… to the end", IMPLICIT, f"{S3}/*/test/*", f"{S3}/1/2/test.jpg"),
    on("* takes in colons in the resource part", ALLOW, "arn:aws:logs:*:*:log-group:*",
        f"arn:aws:logs:eu:{ACCOUNT}:log-group:a:b:c"),
    on("a bucket is not its objects", IMPLICIT, S3, f"{S3}/key"),
    on("characters special elsewhere are plain", IMPLICIT, f"{S3}/a.c", f"{S3}/abc"),
    on("* spans a line end in a key", ALLOW, f"{S3}/a*c", f"{S3}/a\nb\nc"),
    Case(RESOURCE, "an action on no resource needs *", IMPLICIT, [allow("*", ENDPOINT)], resource="*"),
    Case(RESOURCE, "… and has it", ALLOW, [allow()], resource="*"),
    Case(NOT_RESOURCE, "every resource except", ALLOW,
        [{**without("Resource", allow()), "NotResource": f"{HERE}/test-*"}]),
    Case(NOT_RESOURCE, "the exception", IMPLICIT,
        [{**without("Resource", allow()), "NotResource": f"{HERE}/prod-*"}]),
    Case(NOT_RESOURCE, "with Deny", EXPLICIT,
        [allow(), {**without("Resource", deny()), "NotResource": [S3, f"{S3}/*"]}]),
    varying("the user's name", ALLOW, f"{S3}/home/${{aws:username}}/*", f"{S3}/home/alice/x"),
    varying("another user's", IMPLICIT, f"{S3}/home/${{aws:username}}/*", f"{S3}/home/bob/x"),
    varying("key names are not case-sensitive", ALLOW, f"{S3}/${{AWS:UserName}}", f"{S3}/alice"),
    varying("the user's id", ALLOW, f"{S3}/${{aws:userid}}", f"{S3}/AIDAALICE"),
    varying("a role session's id", ALLOW, f"{S3}/${{aws:userid}}", f"{S3}/AROASCORER:nightly", caller=SESSION),
    varying("a tag of the principal", ALLOW, f"{HERE}/${{aws:PrincipalTag/team}}-*", f"{HERE}/blue-1"),
    varying("another tag value", IMPLICIT, f"{HERE}/${{aws:PrincipalTag/team}}-*", f"{HERE}/red-1"),
    varying("without a value, it matches no resource", IMPLICIT, f"{HERE}/${{aws:PrincipalTag/none}}*",
        ENDPOINT),
    varying("… an empty value is none", IMPLICIT, f"{HERE}/${{aws:PrincipalTag/empty}}*", ENDPOINT),
    varying("a role session has no aws:username", IMPLICIT, f"{S3}/${{aws:username}}*", f"{S3}/x",
        caller=SESSION),
    varying("a default for a missing value", ALLOW, f"{S3}-${{aws:PrincipalTag/none, 'company-wide'}}",
        f"{S3}-company-wide"),
    varying("the value goes before the default", IMPLICIT, f"{S3}-${{aws:PrincipalTag/team, 'company-wide'}}",
        f"{S3}-company-wide"),
    varying("… and is put in", ALLOW, f"{S3}-${{aws:PrincipalTag/team, 'company-wide'}}", f"{S3}-blue"),
    varying("${*} is an asterisk", ALLOW, f"{S3}/a${{*}}b", f"{S3}/a*b"),
    varying("… and no wildcard", IMPLICIT, f"{S3}/a${{*}}b", f"{S3}/axb"),
    varying("${?} is a question mark", ALLOW, f"{S3}/a${{?}}b", f"{S3}/a?b"),
    varying("… and no wildcard", IMPLICIT, f"{S3}/a${{?}}b", f"{S3}/axb"),
    varying("${$} is a dollar sign", ALLOW, f"{S3}/${{$}}{{aws:username}}", f"{S3}/${{aws:username}}"),
    varying("a multivalued key cannot be a variable", IMPLICIT, f"{S3}/${{aws:TagKeys}}", f"{S3}/a",
        context={"aws:TagKeys": ("a",)}),
    varying("what is put in is no wildcard", IMPLICIT, f"{S3}/${{s3:x}}", f"{S3}/anything",
        context={"s3:x": "*"}),
    varying("two variables", ALLOW, f"{S3}/${{aws:PrincipalTag/team}}/${{aws:username}}/*",
        f"{S3}/blue/alice/"),
    Case(VERSION, "2008-10-17 has no policy variables: they are plain text", ALLOW,
        [allow("*", f"{S3}/${{aws:username}}")], resource=f"{S3}/${{aws:username}}", version="2008-10-17"),
    Case(VERSION, "… and are not replaced", IMPLICIT, [allow("*", f"{S3}/${{aws:username}}")],
        resource=f"{S3}/alice", version="2008-10-17"),
    Case(VARIABLES, "in NotResource, one without a value exempts nothing", EXPLICIT,
        [allow(), {**without("Resource", deny()), "NotResource": f"{HERE}/${{aws:PrincipalTag/none}}*"}]),
]
# fmt: on

# --- Conditions ----------------------------------------------------------------------------------------

OPERATORS = "IAM JSON policy elements: Condition operators"
MULTIPLE = "Conditions with multiple context keys or values"
SETS = "Set operators for multivalued context keys"
KEYS = "AWS global condition context keys"
SAGEMAKER = "Actions, resources, and condition keys for Amazon SageMaker AI"
TOPIC = f"arn:aws:sns:eu-west-1:{ACCOUNT}:topic-1"


def when(
    page: str,
    rule: str,
    holds: bool,
    operator: str,
    key: str,
    value: object,
    /,
    *given: str | tuple[str, ...],
) -> Case:
    """An Allow on a condition; `given` is the key's value in the request, if it has one."""
    return Case(
        page,
        rule,
        ALLOW if holds else IMPLICIT,
        [allow(Condition={operator: {key: value}})],
        context=dict.fromkeys([key], *given) if given else {},
    )


def op(rule: str, holds: bool, operator: str, value: object, /, *given: str | tuple[str, ...]) -> Case:
    return when(OPERATORS, f"{operator}: {rule}", holds, operator, "s3:prefix", value, *given)


def many(rule: str, holds: bool, operator: str, value: object, /, *given: str | tuple[str, ...]) -> Case:
    return when(SETS, f"{operator}: {rule}", holds, operator, "aws:TagKeys", value, *given)


AND = {
    "StringEquals": {"aws:RequestTag/a": "1", "aws:RequestTag/b": ["2", "3"]},
    "Bool": {"aws:RequestTag/c": True},
}

# fmt: off
CONDITION_CASES = [
    op("exact", True, "StringEquals", "a", "a"),
    op("another value", False, "StringEquals", "a", "b"),
    op("case-sensitive", False, "StringEquals", "a", "A"),
    op("* is no wildcard", False, "StringEquals", "a*", "ab"),
    op("a missing key does not match", False, "StringEquals", "a"),
    op("values are joined by OR", True, "StringEquals", ["b", "a"], "a"),
    op("no values match nothing", False, "StringEquals", [], "a"),
    op("a value that is equal", False, "StringNotEquals", "a", "a"),
    op("a value that is not", True, "StringNotEquals", "a", "b"),
    op("a missing key: true", True, "StringNotEquals", "a"),
    op("no values: true", True, "StringNotEquals", [], "a"),
    when(MULTIPLE, "values of a negated operator work like AND", False, "StringNotEquals", "s3:prefix", ["a", "b"],
        "b"),
    when(MULTIPLE, "… when none matches", True, "StringNotEquals", "s3:prefix", ["a", "b"], "c"),
    op("case does not matter", True, "StringEqualsIgnoreCase", "ABC", "aBc"),
    op("another value", False, "StringEqualsIgnoreCase", "ABC", "abd"),
    op("equal but for case", False, "StringNotEqualsIgnoreCase", "ABC", "abc"),
    op("a missing key: true", True, "StringNotEqualsIgnoreCase", "ABC"),
    op("* is a wildcard", True, "StringLike", "a*", "abc"),
    op("? is one", True, "StringLike", "a?c", "abc"),
    op("case-sensitive", False, "StringLike", "a*", "Abc"),
    op("without wildcards it is exact", False, "StringLike", "a", "ab"),
    op("a missing key does not match", False, "StringLike", "*"),
    op("it spans colons and slashes", True, "StringLike", "arn:aws:someservice:*:111122223333:finance/*",
        "arn:aws:someservice:us-east-2:999999999999:store/abc:111122223333:finance/document.txt"),
    op("many wildcards on a long value end soon", False, "StringLike", "a*" * 40 + "b", "a" * 20000),
    op("a value that is like it", False, "StringNotLike", "a*", "abc"),
    op("a value that is not", True, "StringNotLike", "a*", "bbc"),
    op("a missing key: true", True, "StringNotLike", "a*"),
    op("equal numbers", True, "NumericEquals", "10", "10.0"),
    op("a JSON number", True, "NumericEquals", 10, "10"),
    op("a decimal", True, "NumericEquals", 1.5, "1.50"),
    op("not a number", False, "NumericEquals", "10", "ten"),
    op("another number", True, "NumericNotEquals", "10", "11"),
    op("the same", False, "NumericNotEquals", "10", "10"),
    op("a missing key: true", True, "NumericNotEquals", "10"),
    op("less", True, "NumericLessThan", "10", "9"),
    op("as numbers, not as text", True, "NumericLessThan", "10", "9.99"),
    op("equal is not less", False, "NumericLessThan", "10", "10"),
    op("equal", True, "NumericLessThanEquals", "10", "10"),
    op("greater", False, "NumericLessThanEquals", "10", "11"),
    op("a missing key does not match", False, "NumericLessThanEquals", "10"),
    op("greater", True, "NumericGreaterThan", "-10", "-9"),
    op("equal", True, "NumericGreaterThanEquals", "10", "10"),
    op("less", False, "NumericGreaterThanEquals", "10", "9"),
    op("the same moment, other zones", True, "DateEquals", "2026-01-01T12:00:00Z", "2026-01-01T13:00:00+01:00"),
    op("a day", True, "DateEquals", "2026-01-01", "2026-01-01T00:00:00Z"),
    op("a year", True, "DateGreaterThan", "2025", "2026-01-01T00:00:00Z"),
    op("epoch seconds", True, "DateEquals", "1767225600", "2026-01-01T00:00:00Z"),
    op("fractions", True, "DateGreaterThan", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.5Z"),
    op("another moment", True, "DateNotEquals", "2026-01-01", "2026-01-02"),
    op("a missing key: true", True, "DateNotEquals", "2026-01-01"),
    op("not a date", False, "DateLessThan", "2026-01-01", "yesterday"),
    op("equal", True, "DateLessThanEquals", "2026-01-01", "2026-01-01"),
    op("equal", True, "DateGreaterThanEquals", "2026-01-01", "2026-01-01"),
    op("true", True, "Bool", "true", "true"),
    op("a JSON Boolean", True, "Bool", True, "true"),
    op("the other", False, "Bool", "false", "true"),
    op("case does not matter", True, "Bool", "TRUE", "True"),
    op("a missing key does not match", False, "Bool", "false"),
    op("byte for byte", True, "BinaryEquals", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", "QmluYXJ5VmFsdWVJbkJhc2U2NA=="),
    op("other bytes", False, "BinaryEquals", "QmluYXJ5VmFsdWVJbkJhc2U2NA==", "eA=="),
    op("not base64", False, "BinaryEquals", "eA==", "x"),
    op("within the range", True, "IpAddress", "203.0.113.0/24", "203.0.113.7"),
    op("outside", False, "IpAddress", "203.0.113.0/24", "203.0.114.7"),
    op("an address without prefix is /32", True, "IpAddress", "203.0.113.7", "203.0.113.7"),
    op("IPv6", True, "IpAddress", "2001:DB8:1234:5678::/64", "2001:db8:1234:5678::1"),
    op("IPv6, written otherwise", True, "IpAddress", "2001:db8::1", "2001:0db8:0:0::1"),
    op("a mixed list, IPv4", True, "IpAddress", ["2001:DB8:1234:5678::/64", "203.0.113.0/24"], "203.0.113.1"),
    op("another family", False, "IpAddress", "203.0.113.0/24", "2001:db8::1"),
    op("IPv4 that an IPv6 socket reports", True, "IpAddress", "203.0.113.0/24", "::ffff:203.0.113.7"),
    op("a range in the request is no address", False, "IpAddress", "10.0.0.0/8", "10.1.0.0/16"),
    op("not an address", False, "IpAddress", "0.0.0.0/0", "here"),
    op("a missing key does not match", False, "IpAddress", "0.0.0.0/0"),
    op("outside", True, "NotIpAddress", "203.0.113.0/24", "198.51.100.1"),
    op("within", False, "NotIpAddress", "203.0.113.0/24", "203.0.113.7"),
    op("within one of several", False, "NotIpAddress", ["203.0.113.0/24", "198.51.100.0/24"], "198.51.100.1"),
    op("a missing key: true", True, "NotIpAddress", "203.0.113.0/24"),
    op("exact", True, "ArnEquals", TOPIC, TOPIC),
    op("wildcards, as ArnLike", True, "ArnEquals", "arn:aws:sns:*:*:topic-*", TOPIC),
    op("a component each", False, "ArnLike", "arn:aws:someservice:*:111122223333:finance/*",
        "arn:aws:someservice:us-east-2:999999999999:store/abc:111122223333:finance/document.txt"),
    op("case-sensitive", False, "ArnLike", TOPIC.upper().replace("ARN:AWS", "arn:aws"), TOPIC),
    op("not an ARN", False, "ArnLike", "arn:aws:sns:*:*:*", "topic-1"),
    op("a missing key does not match", False, "ArnLike", "arn:aws:sns:*:*:*"),
    op("like it", False, "ArnNotLike", "arn:aws:sns:*:*:*", TOPIC),
    op("not like it", True, "ArnNotEquals", "arn:aws:sqs:*:*:*", TOPIC),
    op("a missing key: true", True, "ArnNotEquals", TOPIC),
    op("the key must not exist, and does not", True, "Null", "true"),
    op("the key must not exist, but does", False, "Null", "true", "x"),
    op("the key must exist, and does", True, "Null", "false", "x"),
    op("the key must exist, but does not", False, "Null", False),
    op("a set without values is null", True, "Null", "true", ()),
    op("a set of empty texts is null", True, "Null", "true", ("",)),
    op("an empty text is a value", True, "Null", "false", ""),
    op("a missing key: true", True, "StringEqualsIfExists", "a"),
    op("a key that is there is compared", False, "StringEqualsIfExists", "a", "b"),
    op("… and may match", True, "StringLikeIfExists", ["t1.*", "t2.*"], "t2.micro"),
    op("a missing key: true", True, "NumericLessThanIfExists", "1"),
    op("a missing key: true", True, "BoolIfExists", "true"),
    op("a missing key: true", True, "IpAddressIfExists", "10.0.0.0/8"),
    op("a missing key: still true", True, "StringNotEqualsIfExists", "a"),
    op("a key that is there is compared", False, "StringNotEqualsIfExists", "a", "a"),
    Case(MULTIPLE, "operators and keys are joined by AND", ALLOW, [allow(Condition=AND)],
        context={"aws:RequestTag/a": "1", "aws:RequestTag/b": "3", "aws:RequestTag/c": "true"}),
    Case(MULTIPLE, "one key fails", IMPLICIT, [allow(Condition=AND)],
        context={"aws:RequestTag/a": "1", "aws:RequestTag/b": "4", "aws:RequestTag/c": "true"}),
    Case(MULTIPLE, "one operator fails", IMPLICIT, [allow(Condition=AND)],
        context={"aws:RequestTag/a": "1", "aws:RequestTag/b": "2", "aws:RequestTag/c": "false"}),
    when(SETS, "multivalued context keys require a set operator", False, "StringEquals", "aws:TagKeys", "a",
        ("a", "b")),
    when(SETS, "… unless there is one value only", True, "StringEquals", "aws:TagKeys", "a", ("a",)),
    when(SETS, "… a negated one too", False, "StringNotEquals", "aws:TagKeys", "c", ("a", "b")),
    many("every value matches one", True, "ForAllValues:StringEquals", ["a", "b", "c"], ("a", "b")),
    many("one does not", False, "ForAllValues:StringEquals", ["a", "b"], ("a", "z")),
    many("no key: true", True, "ForAllValues:StringEquals", ["a"]),
    many("no values: true", True, "ForAllValues:StringEquals", ["a"], ()),
    many("an empty string is a null data set: true", True, "ForAllValues:StringEquals", ["a"], ""),
    many("a single value", True, "ForAllValues:StringLike", "key1*", "key10"),
    many("negated: no value matches any", True, "ForAllValues:StringNotEquals", ["x", "y"], ("a", "b")),
    many("negated: one value matches", False, "ForAllValues:StringNotEquals", ["x", "a"], ("a", "b")),
    many("negated, no key: true", True, "ForAllValues:StringNotEquals", ["a"]),
    many("one value matches", True, "ForAnyValue:StringEquals", ["b", "z"], ("a", "b")),
    many("none matches", False, "ForAnyValue:StringEquals", ["y", "z"], ("a", "b")),
    many("no key: false", False, "ForAnyValue:StringEquals", ["a"]),
    many("no values: false", False, "ForAnyValue:StringEquals", ["a"], ()),
    many("an empty string is a null data set: false", False, "ForAnyValue:StringLike", "*", ""),
    many("negated: one value matches none", True, "ForAnyValue:StringNotEquals", ["a"], ("a", "b")),
    many("negated: every value matches", False, "ForAnyValue:StringNotEquals", ["a", "b"], ("a", "b")),
    many("negated, no key: false", False, "ForAnyValue:StringNotEquals", ["a"]),
    many("no key: true", True, "ForAnyValue:StringEqualsIfExists", ["a"]),
    many("numbers", True, "ForAnyValue:NumericLessThan", 10, ("11", "9")),
    many("ARNs", True, "ForAllValues:ArnLike", "arn:aws:sns:*:*:*", (TOPIC, f"{TOPIC}2")),
    many("addresses", False, "ForAllValues:IpAddress", "10.0.0.0/8", ("10.1.2.3", "11.1.2.3")),
    Case(SETS, "ForAllValues with Null false refuses the request without keys", IMPLICIT,
        [allow(Condition={"ForAllValues:StringEquals": {"aws:TagKeys": "a"}, "Null": {"aws:TagKeys": "false"}})]),
    Case("IAM JSON policy elements: Condition", "key names are not case-sensitive", ALLOW,
        [allow(Condition={"StringEquals": {"AWS:SOURCEVPC": "v"}})], context={"aws:SourceVpc": "v"}),
    Case("IAM JSON policy elements: Condition", "values are, with StringEquals", IMPLICIT,
        [allow(Condition={"StringEquals": {"aws:username": "Alice"}})]),
    # Keys
    Case(KEYS, "aws:username of a user", ALLOW, [allow(Condition={"StringEquals": {"aws:username": "alice"}})]),
    Case(KEYS, "aws:username is not there for a role session", ALLOW,
        [allow(Condition={"Null": {"aws:username": "true"}})], caller=SESSION),
    Case(KEYS, "aws:PrincipalArn of a role session is the role's", ALLOW,
        [allow(Condition={"ArnEquals": {"aws:PrincipalArn": ROLE_ARN}})], caller=SESSION),
    Case(KEYS, "… and not the session's", IMPLICIT,
        [allow(Condition={"ArnEquals": {"aws:PrincipalArn": SESSION.arn}})], caller=SESSION),
    Case(KEYS, "aws:PrincipalArn of a federated user is its own", ALLOW,
        [allow(Condition={"ArnLike": {"aws:PrincipalArn": "arn:aws:sts::*:federated-user/carol"}})],
        session=[allow()], caller=FEDERATED),
    Case(KEYS, "aws:PrincipalAccount", ALLOW,
        [allow(Condition={"StringEquals": {"aws:PrincipalAccount": ACCOUNT}})]),
    Case(KEYS, "aws:PrincipalType of a user", ALLOW,
        [allow(Condition={"StringEquals": {"aws:PrincipalType": "User"}})]),
    Case(KEYS, "aws:PrincipalType of a role session", ALLOW,
        [allow(Condition={"StringEquals": {"aws:PrincipalType": "AssumedRole"}})], caller=SESSION),
    Case(KEYS, "aws:userid", ALLOW, [allow(Condition={"StringLike": {"aws:userid": "AROASCORER:*"}})],
        caller=SESSION),
    Case(KEYS, "aws:PrincipalTag", ALLOW,
        [allow(Condition={"StringEquals": {"aws:PrincipalTag/team": ["red", "blue"]}})]),
    Case(KEYS, "aws:PrincipalTag that is missing", IMPLICIT,
        [allow(Condition={"StringEquals": {"aws:PrincipalTag/none": "x"}})]),
    Case(KEYS, "keys about the principal cannot be given by the request", IMPLICIT,
        [allow(Condition={"StringEquals": {"aws:PrincipalTag/none": "x"}})],
        context={"AWS:principaltag/None": "x"}),
    Case(KEYS, "aws:PrincipalIsAWSService exempts services from a Deny", ALLOW, caller=SERVICE,
        resource_policy=[
            named("*", allow()),
            named("*", deny(Condition={"Bool": {"aws:PrincipalIsAWSService": "false"}})),
        ]),
    Case(KEYS, "aws:SourceIp within", ALLOW,
        [allow(Condition={"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:db8::/32"]}})],
        context={"aws:SourceIp": "192.0.2.9"}),
    Case(KEYS, "aws:SourceIp outside, denied", EXPLICIT,
        [allow(), deny(Condition={"NotIpAddress": {"aws:SourceIp": ["192.0.2.0/24", "203.0.113.0/24"]}})],
        context={"aws:SourceIp": "198.51.100.1"}),
    Case(KEYS, "aws:CurrentTime between two dates", ALLOW,
        [allow(Condition={
            "DateGreaterThan": {"aws:CurrentTime": "2026-04-01T00:00:00Z"},
            "DateLessThan": {"aws:CurrentTime": "2026-06-30T23:59:59Z"},
        })],
        context={"aws:CurrentTime": "2026-05-01T08:00:00Z"}),
    Case(KEYS, "aws:CurrentTime after them", IMPLICIT,
        [allow(Condition={"DateLessThan": {"aws:CurrentTime": "2026-06-30T23:59:59Z"}})],
        context={"aws:CurrentTime": "2026-07-01T00:00:00Z"}),
    Case(KEYS, "aws:EpochTime", ALLOW, [allow(Condition={"DateLessThan": {"aws:EpochTime": "2026-06-30"}})],
        context={"aws:EpochTime": "1767225600"}),
    Case(KEYS, "aws:SecureTransport", EXPLICIT,
        [allow(), deny(Condition={"Bool": {"aws:SecureTransport": "false"}})],
        context={"aws:SecureTransport": "false"}),
    Case(KEYS, "aws:TokenIssueTime: only with temporary credentials", IMPLICIT,
        [allow(Condition={"DateGreaterThan": {"aws:TokenIssueTime": "2020-01-01T00:00:01Z"}})]),
    Case(KEYS, "aws:RequestTag", ALLOW,
        [allow(Condition={"StringEquals": {"aws:RequestTag/stage": ["dev", "test"]}})],
        context={"aws:RequestTag/stage": "dev"}),
    Case(KEYS, "aws:RequestTag: its key is not case-sensitive", ALLOW,
        [allow(Condition={"StringEquals": {"aws:RequestTag/Stage": "dev"}})],
        context={"aws:RequestTag/stage": "dev"}),
    Case(KEYS, "aws:RequestTag that is missing", IMPLICIT,
        [allow(Condition={"StringLike": {"aws:RequestTag/stage": "*"}})]),
    Case(KEYS, "aws:ResourceTag", ALLOW,
        [allow(Condition={"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}})],
        context={"aws:ResourceTag/team": "blue"}),
    Case(KEYS, "aws:ResourceTag of another team", IMPLICIT,
        [allow(Condition={"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}})],
        context={"aws:ResourceTag/team": "red"}),
    Case(KEYS, "aws:TagKeys: only these", ALLOW,
        [allow(Condition={"ForAllValues:StringEquals": {"aws:TagKeys": ["stage", "team"]}})],
        context={"aws:TagKeys": ("stage",)}),
    Case(KEYS, "aws:TagKeys: another", IMPLICIT,
        [allow(Condition={"ForAllValues:StringEquals": {"aws:TagKeys": ["stage", "team"]}})],
        context={"aws:TagKeys": ("stage", "cost")}),
    Case(SAGEMAKER, "sagemaker:TargetModel", ALLOW,
        [allow(Condition={"StringLike": {"sagemaker:TargetModel": "fr/*.tar.gz"}})],
        context={"sagemaker:TargetModel": "fr/a.tar.gz"}),
    Case(SAGEMAKER, "sagemaker:TargetModel of another", IMPLICIT,
        [allow(Condition={"StringLike": {"sagemaker:TargetModel": "fr/*.tar.gz"}})],
        context={"sagemaker:TargetModel": "de/a.tar.gz"}),
    Case(SAGEMAKER, "sagemaker:TargetModel that the request does not name", IMPLICIT,
        [allow(Condition={"StringLike": {"sagemaker:TargetModel": "fr/*.tar.gz"}})]),
    # Variables
    Case(VARIABLES, "a variable in a string comparison", ALLOW,
        [allow(Condition={"StringLike": {"s3:prefix": ["", "home/${aws:username}/*"]}})],
        context={"s3:prefix": "home/alice/x"}),
    Case(VARIABLES, "… of another user", IMPLICIT,
        [allow(Condition={"StringLike": {"s3:prefix": "home/${aws:username}/*"}})],
        context={"s3:prefix": "home/bob/x"}),
    Case(VARIABLES, "a variable in an ARN comparison", ALLOW,
        [allow(Condition={"ArnLike": {"aws:RequestTag/arn": "arn:aws:sns:*:*:${aws:username}-*"}})],
        context={"aws:RequestTag/arn": "arn:aws:sns:eu:1:alice-1"}),
    Case(VARIABLES, "a variable without a value does not match", IMPLICIT,
        [allow(Condition={"StringEquals": {"s3:prefix": "${aws:PrincipalTag/none}"}})],
        context={"s3:prefix": ""}),
    Case(VARIABLES, "inverted operators do match against a null value", ALLOW,
        [allow(Condition={"StringNotEquals": {"s3:prefix": "${aws:PrincipalTag/none}"}})],
        context={"s3:prefix": "a"}),
    Case(VARIABLES, "a default in a condition", ALLOW,
        [allow(Condition={"StringEquals": {"s3:prefix": "${aws:PrincipalTag/none, 'dev'}"}})],
        context={"s3:prefix": "dev"}),
    Case(VARIABLES, "${*} in StringLike", IMPLICIT, [allow(Condition={"StringLike": {"s3:prefix": "a${*}"}})],
        context={"s3:prefix": "ab"}),
    Case(VARIABLES, "${*} in StringEquals", ALLOW, [allow(Condition={"StringEquals": {"s3:prefix": "a${*}"}})],
        context={"s3:prefix": "a*"}),
    Case(OPERATORS, "Bool: a policy variable", ALLOW, [allow(Condition={"Bool": {"s3:prefix": "${s3:delimiter}"}})],
        context={"s3:prefix": "true", "s3:delimiter": "true"}),
    Case(VERSION, "2008-10-17: plain text in conditions too", ALLOW,
        [allow(Condition={"StringEquals": {"s3:prefix": "${aws:username}"}})],
        context={"s3:prefix": "${aws:username}"}, version="2008-10-17"),
]
# fmt: on

CASES = [*LOGIC_CASES, *PATTERN_CASES, *CONDITION_CASES]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.page}: {case.rule}")
def test_rule(case: Case) -> None:
    decision = case.decide()
    assert outcome(decision) == case.expected, decision.why
    assert decision.why


# --- What a decision tells -----------------------------------------------------------------------------


def test_a_deny_names_its_policy_and_sid() -> None:
    team = compile_policy(
        {"Version": "2012-10-17", "Statement": [allow(), deny(INVOKE, Sid="NoCalls")]},
        name="team",
        kind=PolicyKind.IDENTITY,
    )
    decision = evaluate(Request(INVOKE, ENDPOINT, ALICE), identity=[team], resource_account_id=ACCOUNT)
    assert decision.statement is not None
    assert (decision.statement.policy, decision.statement.index, decision.statement.sid) == (
        "team",
        2,
        "NoCalls",
    )
    assert decision.why == "Statement NoCalls of team denies it explicitly (identity-based policy)."


def test_an_implicit_deny_has_no_statement() -> None:
    decision = Case("", "", "", [allow()], boundary=CREATE_ONLY).decide()
    assert (decision.statement, decision.source) == (None, Source.BOUNDARY)
    assert decision.why == "No permissions boundary allows it."


# fmt: off
MESSAGES = [
    (Case("", "", ""), "because no identity-based policy allows the {action} action"),
    (Case("", "", "", [deny()]), "with an explicit deny in an identity-based policy"),
    (Case("", "", "", [allow()], boundary=CREATE_ONLY),
        "because no permissions boundary allows the {action} action"),
    (Case("", "", "", [allow()], boundary=[deny()]), "with an explicit deny in a permissions boundary"),
    (Case("", "", "", [allow()], session=CREATE_ONLY, caller=SESSION),
        "because no session policy allows the {action} action"),
    (Case("", "", "", [allow()], session=[deny()], caller=SESSION),
        "with an explicit deny in a session policy"),
    (Case("", "", "", **CROSS_ZOE), "because no resource-based policy allows the {action} action"),
    (Case("", "", "", [allow()], resource_policy=[named("*", deny())]),
        "with an explicit deny in a resource-based policy"),
    (Case("", "", "", [allow()], trust_policy=[trust({"AWS": BOB.arn})], **TRUSTED),
        "because no role trust policy allows the {action} action"),
    (Case("", "", "", trust_policy=[trust(USER, "Deny")], **TRUSTED),
        "with an explicit deny in the role trust policy"),
]
# fmt: on


@pytest.mark.parametrize(("case", "ending"), MESSAGES)
def test_denial_message_is_in_the_words_of_aws(case: Case, ending: str) -> None:
    """ "Troubleshoot access denied error messages"."""
    request = Request(case.action, case.resource, case.caller)
    assert denial_message(request, case.decide()) == (
        f"User: {case.caller.arn} is not authorized to perform: {case.action} on resource: {case.resource} "
        + ending.format(action=case.action)
    )


def test_context_keys_of_callers() -> None:
    """ "Principal key values"."""
    assert caller_context(ROOT) == {
        "aws:PrincipalIsAWSService": "false",
        "aws:PrincipalArn": ROOT.arn,
        "aws:PrincipalAccount": ACCOUNT,
        "aws:PrincipalType": "Account",
        "aws:userid": ACCOUNT,
    }
    assert caller_context(FEDERATED)["aws:PrincipalType"] == "FederatedUser"
    assert "aws:username" not in caller_context(FEDERATED)
    assert caller_context(ALICE)["aws:PrincipalTag/team"] == "blue"
    assert caller_context(SERVICE) == {
        "aws:PrincipalIsAWSService": "true",
        "aws:PrincipalServiceName": "sagemaker.amazonaws.com",
        "aws:PrincipalServiceNamesList": ("sagemaker.amazonaws.com",),
    }


# --- Grammar -------------------------------------------------------------------------------------------


def document(*statements: object, **elements: object) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **elements})


IDENTITY, RESOURCE_KIND, TRUST = PolicyKind.IDENTITY, PolicyKind.RESOURCE, PolicyKind.TRUST

# fmt: off
REFUSED = [
    (IDENTITY, "no JSON", "not valid JSON"),
    (IDENTITY, "[]", "must be a JSON object"),
    (IDENTITY, "[" * 100_000, "not valid JSON"),
    (IDENTITY, '{"Statement": [], "Statement": []}', "Statement: .* more than once"),
    (IDENTITY, document(allow(Sid=float("nan"))), "not valid JSON"),
    (IDENTITY, document(allow(), Name="x"), "The policy has an unknown element: Name"),
    (IDENTITY, document(allow(), Version="2026-01-01"), "Version: must be"),
    (IDENTITY, document(allow(), Id="x"), "Id: must not"),
    (RESOURCE_KIND, document(named("*", allow()), Id=1), "Id: must be a string"),
    (IDENTITY, '{"Version": "2012-10-17"}', "Statement 1: must be an object"),
    (IDENTITY, document(), "Statement: a policy must have"),
    (IDENTITY, document(allow(), "x"), "Statement 2: must be an object"),
    (IDENTITY, document(allow(Principle="*")), "Statement 1 has an unknown element: Principle"),
    (IDENTITY, document(allow(Sid="not ok")), "Statement 1, Sid"),
    (IDENTITY, document(allow(Sid=1)), "Statement 1, Sid"),
    (IDENTITY, document(allow(Sid="A"), deny(Sid="A")), "Statement 2, Sid"),
    (IDENTITY, document(allow(Effect="allow")), "Statement 1, Effect"),
    (IDENTITY, document(without("Effect", allow(Sid="A"))), r"Statement 1 \(A\), Effect"),
    (IDENTITY, document(allow(NotAction="*")), "Statement 1, Action: cannot be together"),
    (IDENTITY, document(without("Action", allow())), "Statement 1, Action: a statement must have"),
    (IDENTITY, document(allow([])), "Statement 1, Action: must name"),
    (IDENTITY, document(allow("InvokeEndpoint")), "Statement 1, Action: 'InvokeEndpoint'"),
    (IDENTITY, document(allow("sagemaker:Invoke Endpoint")), "Statement 1, Action"),
    (IDENTITY, document(allow([1])), "Statement 1, Action: must be a string"),  # type: ignore[list-item]
    (IDENTITY, document(without("Resource", allow())), "Statement 1, Resource: a statement must have"),
    (IDENTITY, document(allow(NotResource="*")), "Statement 1, Resource: cannot be together"),
    (IDENTITY, document(allow("*", [])), "Statement 1, Resource: must name"),
    (IDENTITY, document(allow("*", "endpoint/a")), "Statement 1, Resource: .*ARN"),
    (IDENTITY, document(allow("*", "arn:aws:s3")), "Statement 1, Resource: .*ARN of six parts"),
    (IDENTITY, document(allow("*", "arn:aws:*:eu:1:x")), "Statement 1, Resource: .*service"),
    (IDENTITY, document(allow("*", "arn:aws:s3:${aws:x}::x")), "Statement 1, Resource: .*fifth colon"),
    (IDENTITY, document(allow("*", "arn:aws:s3:::${aws:x")), "Statement 1, Resource: .*not closed"),
    (IDENTITY, document(allow("*", "arn:aws:s3:::${}")), "Statement 1, Resource: .*not a policy variable"),
    (IDENTITY, document(named("*", allow())), "Statement 1, Principal: an identity-based policy"),
    (RESOURCE_KIND, document(allow()), "Statement 1, Principal: a resource-based policy must"),
    (RESOURCE_KIND, document(named({}, allow())), "Statement 1, Principal"),
    (RESOURCE_KIND, document(named("me", allow())), "Statement 1, Principal"),
    (RESOURCE_KIND, document(named({"AWS": "me"}, allow())), "Statement 1, Principal: 'me'"),
    (RESOURCE_KIND, document(named({"AWS": [1]}, allow())), "Statement 1, Principal"),
    (RESOURCE_KIND, document(named({"User": "me"}, allow())), "Statement 1, Principal: 'User'"),
    (RESOURCE_KIND, document(named({"Service": "*"}, allow())), "Statement 1, Principal"),
    (RESOURCE_KIND, document(named({"AWS": f"arn:aws:iam::{ACCOUNT}:user/*"}, allow())),
        "Statement 1, Principal"),
    (RESOURCE_KIND, document(named("*", allow(NotPrincipal="*"))), "Statement 1, Principal: cannot be"),
    (TRUST, document(trust("*", Resource="*")), "Statement 1, Resource: a role trust policy must not"),
    (TRUST, document(trust("*", Action="*")), "Statement 1, Action: .*sts"),
    (TRUST, document(without("Principal", trust("*", NotPrincipal="*"))), "Statement 1, NotPrincipal"),
    (TRUST, document(without("Principal", trust("*"))), "Statement 1, Principal: a role trust policy must"),
    (IDENTITY, document(allow(Condition=[])), "Statement 1, Condition"),
    (IDENTITY, document(allow(Condition={"StringIs": {"a": "b"}})), "Statement 1, Condition: StringIs, a"),
    (IDENTITY, document(allow(Condition={"StringEquals": "a"})), "Statement 1, Condition: StringEquals must"),
    (IDENTITY, document(allow(Condition={"StringEquals": {"": "a"}})), "Statement 1, Condition"),
    (IDENTITY, document(allow(Condition={"StringEquals": {"a": {}}})), "Condition: StringEquals, a: a value"),
    (IDENTITY, document(allow(Condition={"StringEquals": {"a": [None]}})), "Condition: StringEquals, a"),
    (IDENTITY, document(allow(Condition={"NumericEquals": {"a": "one"}})), "NumericEquals, a: 'one'"),
    (IDENTITY, document(allow(Condition={"DateEquals": {"a": "2026-13-01"}})), "DateEquals, a"),
    (IDENTITY, document(allow(Condition={"Bool": {"a": "yes"}})), "Bool, a: 'yes'"),
    (IDENTITY, document(allow(Condition={"Null": {"a": "maybe"}})), "Null, a: 'maybe'"),
    (IDENTITY, document(allow(Condition={"NullIfExists": {"a": "true"}})), "NullIfExists, a"),
    (IDENTITY, document(allow(Condition={"ForAllValues:Null": {"a": "true"}})), "ForAllValues:Null, a"),
    (IDENTITY, document(allow(Condition={"BinaryEquals": {"a": "?"}})), "BinaryEquals, a"),
    (IDENTITY, document(allow(Condition={"IpAddress": {"a": "10.0.0.0/33"}})), "IpAddress, a"),
    (IDENTITY, document(allow(Condition={"StringLike": {"a": "${b"}})), "StringLike, a: .*not closed"),
]
# fmt: on


@pytest.mark.parametrize(("kind", "text", "problem"), REFUSED)
def test_refused(kind: PolicyKind, text: str, problem: str) -> None:
    """ "Grammar of the IAM JSON policy language": the error names the statement and the element."""
    with pytest.raises(PolicyError, match=problem):
        compile_policy(text, name="p", kind=kind)


ACCEPTED = [
    (IDENTITY, json.dumps({"Statement": allow()})),
    (IDENTITY, document(allow(Condition={}))),
    (IDENTITY, document(allow(Condition={"stringequals": {"a": "b"}}))),
    (RESOURCE_KIND, document(named("*", allow(Sid="with spaces")), Id="an id")),
    (RESOURCE_KIND, document(without("Resource", named("*", allow())))),
    (RESOURCE_KIND, document(named({"AWS": [], "Service": "s3.amazonaws.com"}, allow()))),
    (TRUST, document(trust({"Federated": "accounts.google.com"}, Action="sts:AssumeRoleWithWebIdentity"))),
]


@pytest.mark.parametrize(("kind", "text"), ACCEPTED)
def test_accepted(kind: PolicyKind, text: str) -> None:
    assert compile_policy(text, name="p", kind=kind).statements


def test_size_does_not_count_white_space() -> None:
    text = document(allow())
    size = len("".join(text.split()))
    padded = text.replace(" ", " \n\t" * 100)
    compile_policy(padded, name="p", kind=IDENTITY, max_size=size)
    with pytest.raises(PolicyError, match=f"longer than {size - 1} characters"):
        compile_policy(text, name="p", kind=IDENTITY, max_size=size - 1)


# --- Properties ----------------------------------------------------------------------------------------

CONTEXT_KEYS = st.sampled_from(
    ["aws:SourceIp", "aws:TagKeys", "aws:CurrentTime", "aws:RequestTag/n", "aws:username"]
)
TEXTS = st.sampled_from(["a", "b", "", "10.0.0.1", "2026-01-01", "7", "true", "eA==", ENDPOINT]) | st.text(
    max_size=8
)
CONTEXTS = st.dictionaries(CONTEXT_KEYS, TEXTS | st.lists(TEXTS, max_size=3).map(tuple), max_size=4)
ACTIONS = st.sampled_from([INVOKE, "sagemaker:*", "*", "s3:GetObject", "sagemaker:?nvoke*"])
RESOURCES = st.sampled_from(["*", ENDPOINT, f"{HERE}/*", f"{HERE}/${{aws:username}}", f"{S3}/*"])
CONDITIONS = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"IpAddress": st.just({"aws:SourceIp": "10.0.0.0/8"})}),
    st.fixed_dictionaries({"DateLessThan": st.just({"aws:CurrentTime": "2027-01-01"})}),
    st.builds(
        lambda operator, key, value: {operator: {key: value}},
        st.sampled_from(
            ["StringEquals", "StringNotLike", "ForAllValues:StringLike", "ForAnyValue:StringNotEquals"]
        ),
        CONTEXT_KEYS,
        st.sampled_from(["a", "*", "${aws:username}", "${aws:RequestTag/n, 'a'}", ["a", "b"]]),
    ),
    st.builds(lambda key, value: {"Null": {key: value}}, CONTEXT_KEYS, st.booleans()),
)
PRINCIPALS = st.sampled_from(["*", USER, ROLE, THIS_SESSION, WHOLE_ACCOUNT, {"AWS": STRANGER.arn}])
CALLERS = st.sampled_from([ALICE, ROOT, SESSION, FEDERATED, STRANGER, STRANGE_SESSION, STRANGE_ROOT, SERVICE])
STATEMENTS = st.builds(
    lambda effect, action, resource, condition: {
        "Effect": effect,
        "Action": action,
        "Resource": resource,
        "Condition": condition,
    },
    st.sampled_from(["Allow", "Deny"]),
    ACTIONS,
    RESOURCES,
    CONDITIONS,
)
NAMED_STATEMENTS = st.builds(named, PRINCIPALS, STATEMENTS)


@dataclass(frozen=True)
class Situation:
    request: Request
    identity: list[Element]
    boundary: list[Element]
    session: list[Element]
    resource: list[Element]

    def decide(self) -> Decision:
        return evaluate(
            self.request,
            identity=[policy(*self.identity)] if self.identity else [],
            boundary=policy(*self.boundary) if self.boundary else None,
            session=[policy(*self.session)] if self.session else None,
            resource=policy(*self.resource, kind=PolicyKind.RESOURCE) if self.resource else None,
            resource_account_id=ACCOUNT,
        )


REQUESTS = st.builds(
    Request,
    st.sampled_from([INVOKE, "s3:GetObject"]),
    st.sampled_from([ENDPOINT, f"{S3}/k", "*"]),
    CALLERS,
    CONTEXTS,
)
SITUATIONS = st.builds(
    Situation,
    REQUESTS,
    st.lists(STATEMENTS, max_size=4),
    st.lists(STATEMENTS, max_size=2),
    st.lists(STATEMENTS, max_size=2),
    st.lists(NAMED_STATEMENTS, max_size=3),
)
PLACES = ["identity", "boundary", "session", "resource"]


def changed(situation: Situation, place: str, statements: list[Element]) -> Situation:
    return Situation(**{**vars(situation), place: statements})


@given(SITUATIONS, STATEMENTS, PRINCIPALS, st.sampled_from(PLACES))
def test_adding_a_deny_never_allows_more(
    situation: Situation, statement: Element, principal: object, place: str
) -> None:
    added = {**statement, "Effect": "Deny"}
    if place == "resource":
        added["Principal"] = principal
    more = changed(situation, place, [*vars(situation)[place], added])
    assert situation.decide().allowed or not more.decide().allowed


@given(SITUATIONS, STATEMENTS, PRINCIPALS, st.sampled_from(PLACES))
def test_adding_an_allow_never_denies_more(
    situation: Situation, statement: Element, principal: object, place: str
) -> None:
    """To a policy that is there: a boundary or session policy where none was is a new limit."""
    statements = vars(situation)[place]
    if place in ("boundary", "session") and not statements:
        return
    added = {**statement, "Effect": "Allow"}
    if place == "resource":
        added["Principal"] = principal
    more = changed(situation, place, [*statements, added])
    assert more.decide().allowed or not situation.decide().allowed


@given(SITUATIONS, st.randoms(use_true_random=False))
def test_the_order_of_statements_is_irrelevant(situation: Situation, random: Any) -> None:
    shuffled = situation
    for place in PLACES:
        statements = list(vars(situation)[place])
        random.shuffle(statements)
        shuffled = changed(shuffled, place, statements)
    assert outcome(shuffled.decide()) == outcome(situation.decide())


ANY_CONTEXT = st.dictionaries(st.text(), st.text() | st.lists(st.text()).map(tuple))
OPERATOR_VALUES = {
    "Numeric": ["1", "-2.5"],
    "Date": ["2026", "2026-01-01T00:00:00Z", "1767225600"],
    "Bool": ["true"],
    "Binary": ["eA=="],
    "IpAddress": ["10.0.0.0/8", "::1"],
    "NotIpAddress": ["10.0.0.0/8"],
    "Arn": ["*", "arn:*:*:*:*:*", "not an arn", "${aws:RequestTag/n}"],
    "String": ["*?", "${aws:RequestTag/n}", "${*}${?}${$}"],
    "Null": ["true"],
}
ALL_OPERATORS = sorted(
    {
        operator
        for case in CONDITION_CASES
        for statement in case.identity
        for operator in statement.get("Condition", ())
    }
)


@settings(max_examples=300)
@given(
    st.sampled_from(ALL_OPERATORS),
    st.text(),
    st.text(),
    ANY_CONTEXT,
    st.text() | st.lists(st.text() | TEXTS, max_size=3).map(tuple),
    st.data(),
)
def test_evaluation_never_raises(
    operator: str, action: str, resource: str, context: Any, value: Any, data: st.DataObject
) -> None:
    family = operator.partition(":")[2] or operator
    values = next(each for prefix, each in OPERATOR_VALUES.items() if family.startswith(prefix))
    statement = allow(Condition={operator: {"aws:RequestTag/n": data.draw(st.sampled_from(values))}})
    for caller in (ALICE, SESSION, SERVICE, STRANGE_ROOT):
        decision = evaluate(
            Request(action, resource, caller, {**context, "aws:RequestTag/n": value}),
            identity=[policy(statement, allow("*", f"{S3}/a*b?${{aws:RequestTag/n}}"))],
            resource=policy(named("*", statement), kind=PolicyKind.RESOURCE),
            resource_account_id=ACCOUNT,
        )
        assert decision.why


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["*", "Allow", "sts:*"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text() | st.sampled_from(["AWS", "Bool", "Null"]), inner, max_size=4)
    ),
    max_leaves=12,
)
LIKE_STATEMENTS = st.dictionaries(
    st.sampled_from(["Sid", "Effect", "Action", "Resource", "NotResource", "Principal", "Condition"]), JSON
)
LIKE_POLICIES = st.dictionaries(
    st.sampled_from(["Version", "Id", "Statement", "x"]),
    JSON | STATEMENTS | LIKE_STATEMENTS | st.lists(LIKE_STATEMENTS | STATEMENTS, max_size=3),
)


@settings(max_examples=300)
@given(
    st.one_of(
        st.text(),
        JSON.map(json.dumps),
        LIKE_POLICIES,
        LIKE_POLICIES.map(json.dumps),
        LIKE_STATEMENTS.map(lambda each: {"Version": "2012-10-17", "Statement": {**allow(), **each}}),
    ),
    st.sampled_from(PolicyKind),
)
def test_compiling_raises_nothing_but_policy_errors(document: Any, kind: PolicyKind) -> None:
    try:
        compile_policy(document, name="p", kind=kind)
    except PolicyError as error:
        assert str(error)
