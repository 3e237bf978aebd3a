"""IAM, called and read by botocore."""

import dataclasses
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import botocore.session
import pytest
from botocore.exceptions import ClientError

from moorage.auth.identities import User
from moorage.controller.iam import OPERATIONS, Iam
from moorage.controller.iam.trust import STS_ACTIONS
from moorage.controller.permissions import Requester
from moorage.storage.identities import IdentityStore

from .identities import ACCOUNT, ADMIN, NOW, OTHER, OTHER_ROOT, ROOT, identity_store, role, user
from .query_client import QueryClient, code


def allow(*actions: str, resource: str = "*", **more: Any) -> str:
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resource, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}],
    }
)
POLICY = allow("sagemaker:InvokeEndpoint")
HERE = f"arn:aws:iam::{ACCOUNT}"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[IdentityStore]:
    async with identity_store(tmp_path) as made:
        yield made


@pytest.fixture
def iam(store: IdentityStore) -> QueryClient:
    return QueryClient("iam", Iam(store, clock=lambda: NOW), ROOT)


def as_(iam: QueryClient, requester: Requester) -> QueryClient:
    return dataclasses.replace(iam, requester=requester)


# --- Users and roles -----------------------------------------------------------------------------------


async def test_a_user_from_its_making_to_its_end(iam: QueryClient) -> None:
    tags = [{"Key": "team", "Value": "red"}]
    made = (await iam.call("CreateUser", UserName="Ann", Path="/ops/", Tags=tags))["User"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/ops/Ann"
    assert made["UserId"].startswith("AIDA")
    assert len(made["UserId"]) == 21
    assert made["CreateDate"] == NOW
    assert (await iam.call("GetUser", UserName="Ann"))["User"] == made
    assert made["Tags"] == tags
    await iam.call("UpdateUser", UserName="Ann", NewUserName="Anna", NewPath="/")
    (listed,) = (await iam.call("ListUsers"))["Users"]
    assert (listed["UserName"], listed["Path"], listed["UserId"]) == ("Anna", "/", made["UserId"])
    assert "Tags" not in listed
    await iam.call("DeleteUser", UserName="Anna")
    assert (await iam.call("ListUsers")) == {"Users": [], "IsTruncated": False}


async def test_a_role_from_its_making_to_its_end(iam: QueryClient) -> None:
    made = (await iam.call("CreateRole", RoleName="r", AssumeRolePolicyDocument=TRUST, Description="d"))[
        "Role"
    ]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/r"
    assert made["RoleId"].startswith("AROA")
    assert unquote(made["AssumeRolePolicyDocument"]) == TRUST
    assert (made["MaxSessionDuration"], made["Description"]) == (3600, "d")
    await iam.call("UpdateRole", RoleName="r", MaxSessionDuration=7200)
    other = TRUST.replace(ACCOUNT, OTHER)
    await iam.call("UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=other)
    found = (await iam.call("GetRole", RoleName="r"))["Role"]
    assert unquote(found["AssumeRolePolicyDocument"]) == other
    assert (found["MaxSessionDuration"], found["Description"]) == (7200, "d")
    assert [each["RoleName"] for each in (await iam.call("ListRoles"))["Roles"]] == ["r"]
    await iam.call("DeleteRole", RoleName="r")
    with pytest.raises(ClientError) as caught:
        await iam.call("GetRole", RoleName="r")
    assert code(caught.value) == ("NoSuchEntity", 404)
    assert caught.value.response["Error"]["Message"] == "The role with name r cannot be found."


@pytest.mark.parametrize("kind", ["User", "Role"])
async def test_tags(iam: QueryClient, kind: str) -> None:
    named = {f"{kind}Name": "x"}
    more = {"AssumeRolePolicyDocument": TRUST} if kind == "Role" else {}
    await iam.call(f"Create{kind}", **named, **more)
    await iam.call(f"Tag{kind}", **named, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": ""}])
    await iam.call(f"Tag{kind}", **named, Tags=[{"Key": "A", "Value": "2"}])
    await iam.call(f"Untag{kind}", **named, TagKeys=["b", "absent"])
    assert (await iam.call(f"List{kind}Tags", **named))["Tags"] == [{"Key": "A", "Value": "2"}]
    with pytest.raises(ClientError, match="Duplicate tag keys"):
        await iam.call(f"Tag{kind}", **named, Tags=[{"Key": "a", "Value": "1"}, {"Key": "A", "Value": "1"}])
    for start in (0, 25):
        tags = [{"Key": f"k{n}", "Value": ""} for n in range(start, start + 25)]
        if start:
            with pytest.raises(ClientError, match="maximum limit: 50"):
                await iam.call(f"Tag{kind}", **named, Tags=tags)
        else:
            await iam.call(f"Tag{kind}", **named, Tags=tags)


async def test_lists_come_in_pages(iam: QueryClient) -> None:
    for number in range(5):
        await iam.call("CreateUser", UserName=f"u{number}", Path="/p/" if number else "/")
    found, marker = [], {}
    while True:
        reply = await iam.call("ListUsers", MaxItems=2, PathPrefix="/p/", **marker)
        found.append([each["UserName"] for each in reply["Users"]])
        if not reply["IsTruncated"]:
            break
        marker = {"Marker": reply["Marker"]}
    assert found == [["u1", "u2"], ["u3", "u4"]]
    with pytest.raises(ClientError, match="Invalid Marker"):
        await iam.call("ListUsers", Marker="!")


@pytest.mark.parametrize(
    ("operation", "members", "expected"),
    [
        ("CreateUser", {"UserName": "ANN"}, ("EntityAlreadyExists", 409)),
        ("CreateUser", {"UserName": "a b"}, ("ValidationError", 400)),
        ("CreateUser", {"UserName": "x", "Path": "no"}, ("ValidationError", 400)),
        ("CreateUser", {"UserName": "x", "PermissionsBoundary": ADMIN}, ("InvalidInput", 400)),
        ("DeleteUser", {"UserName": "bob"}, ("NoSuchEntity", 404)),
        ("ListUsers", {"MaxItems": 1001}, ("ValidationError", 400)),
        (
            "CreateRole",
            {"RoleName": "r", "AssumeRolePolicyDocument": POLICY},
            ("MalformedPolicyDocument", 400),
        ),
        ("CreateRole", {"RoleName": "r", "AssumeRolePolicyDocument": "{"}, ("MalformedPolicyDocument", 400)),
        (
            "PutUserPolicy",
            {"UserName": "ann", "PolicyName": "p", "PolicyDocument": "{}"},
            ("MalformedPolicyDocument", 400),
        ),
        (
            "PutUserPolicy",
            {"UserName": "ann", "PolicyName": "p", "PolicyDocument": allow(*["a:bcdefghij"] * 200)},
            ("LimitExceeded", 409),
        ),
        ("GetUserPolicy", {"UserName": "ann", "PolicyName": "p"}, ("NoSuchEntity", 404)),
        ("AttachUserPolicy", {"UserName": "ann", "PolicyArn": f"{ADMIN}s"}, ("NoSuchEntity", 404)),
        ("DeletePolicy", {"PolicyArn": ADMIN}, ("AccessDenied", 403)),
        ("GetPolicyVersion", {"PolicyArn": ADMIN, "VersionId": "v2"}, ("NoSuchEntity", 404)),
        ("CreateGroup", {"GroupName": "g"}, ("InvalidAction", 400)),
        ("CreateServiceLinkedRole", {"AWSServiceName": "x"}, ("InvalidAction", 400)),
    ],
)
async def test_errors_have_iams_codes_and_statuses(
    iam: QueryClient, operation: str, members: dict[str, Any], expected: tuple[str, int]
) -> None:
    await iam.call("CreateUser", UserName="Ann")
    await iam.call("CreateUser", UserName="ann2")
    await iam.call("UpdateUser", UserName="Ann", NewUserName="ann")
    with pytest.raises(ClientError) as caught:
        await iam.call(operation, **members)
    assert code(caught.value) == expected


async def test_forms_that_name_no_operation(iam: QueryClient) -> None:
    for body in (b"", b"Action=Fly&Version=2010-05-08", b"Action=\xff"):
        status, _, reply = await iam.api.answer(body, ROOT, "r")
        assert status == 400
        assert b'<ErrorResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">' in reply


# --- Access keys ---------------------------------------------------------------------------------------


async def test_access_keys_of_a_user(iam: QueryClient, store: IdentityStore) -> None:
    await iam.call("CreateUser", UserName="ann")
    key = (await iam.call("CreateAccessKey", UserName="ann"))["AccessKey"]
    assert (key["UserName"], key["Status"], len(key["SecretAccessKey"])) == ("ann", "Active", 40)
    told = (await store.snapshot())["identities"].values()
    assert {key["AccessKeyId"]: key["SecretAccessKey"]} in [each["access_keys"] for each in told]
    await iam.call("UpdateAccessKey", UserName="ann", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    (listed,) = (await iam.call("ListAccessKeys", UserName="ann"))["AccessKeyMetadata"]
    assert (listed["AccessKeyId"], listed["Status"]) == (key["AccessKeyId"], "Inactive")
    assert "SecretAccessKey" not in listed
    used = await iam.call("GetAccessKeyLastUsed", AccessKeyId=key["AccessKeyId"])
    assert used == {"UserName": "ann", "AccessKeyLastUsed": {"ServiceName": "N/A", "Region": "N/A"}}
    await iam.call("CreateAccessKey", UserName="ann")
    with pytest.raises(ClientError) as caught:
        await iam.call("CreateAccessKey", UserName="ann")
    assert code(caught.value) == ("LimitExceeded", 409)
    with pytest.raises(ClientError) as caught:
        await iam.call("DeleteUser", UserName="ann")
    assert code(caught.value) == ("DeleteConflict", 409)
    await iam.call("DeleteAccessKey", UserName="ann", AccessKeyId=key["AccessKeyId"])
    with pytest.raises(ClientError, match="cannot be found"):
        await iam.call("DeleteAccessKey", UserName="ann", AccessKeyId=key["AccessKeyId"])


async def test_without_a_name_it_is_the_requester(iam: QueryClient, store: IdentityStore) -> None:
    assert (await iam.call("GetUser"))["User"]["Arn"] == ROOT.principal_arn
    key = (await iam.call("CreateAccessKey"))["AccessKey"]
    assert (await store.access_key(key["AccessKeyId"])).user_name is None
    ann = as_(iam, await user(store, "ann", path="/ops/", document=allow("iam:*")))
    assert (await ann.call("GetUser"))["User"]["UserName"] == "ann"
    assert (await ann.call("CreateAccessKey"))["AccessKey"]["UserName"] == "ann"
    assert len((await ann.call("ListAccessKeys"))["AccessKeyMetadata"]) == 1


# --- Policies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["User", "Role"])
async def test_policies_of_an_identity(iam: QueryClient, kind: str) -> None:
    named = {f"{kind}Name": "x"}
    more = {"AssumeRolePolicyDocument": TRUST} if kind == "Role" else {}
    await iam.call(f"Create{kind}", **named, **more)
    await iam.call(f"Put{kind}Policy", **named, PolicyName="p", PolicyDocument=POLICY)
    found = await iam.call(f"Get{kind}Policy", **named, PolicyName="p")
    assert json.loads(unquote(found["PolicyDocument"])) == json.loads(POLICY)
    assert (await iam.call(f"List{kind}Policies", **named))["PolicyNames"] == ["p"]
    await iam.call(f"Attach{kind}Policy", **named, PolicyArn=ADMIN)
    attached = (await iam.call(f"ListAttached{kind}Policies", **named))["AttachedPolicies"]
    assert attached == [{"PolicyName": "AdministratorAccess", "PolicyArn": ADMIN}]
    with pytest.raises(ClientError) as caught:
        await iam.call(f"Delete{kind}", **named)
    assert code(caught.value) == ("DeleteConflict", 409)
    await iam.call(f"Detach{kind}Policy", **named, PolicyArn=ADMIN)
    await iam.call(f"Delete{kind}Policy", **named, PolicyName="p")
    await iam.call(f"Delete{kind}", **named)


async def test_managed_policies(iam: QueryClient) -> None:
    made = (await iam.call("CreatePolicy", PolicyName="p", Path="/t/", PolicyDocument=POLICY))["Policy"]
    arn = made["Arn"]
    assert arn == f"arn:aws:iam::{ACCOUNT}:policy/t/p"
    assert (made["DefaultVersionId"], made["AttachmentCount"]) == ("v1", 0)
    await iam.call("CreateUser", UserName="ann")
    await iam.call("AttachUserPolicy", UserName="ann", PolicyArn=arn)
    assert (await iam.call("GetPolicy", PolicyArn=arn))["Policy"]["AttachmentCount"] == 1
    version = (await iam.call("GetPolicyVersion", PolicyArn=arn, VersionId="v1"))["PolicyVersion"]
    assert unquote(version["Document"]) == POLICY
    assert [
        each["VersionId"] for each in (await iam.call("ListPolicyVersions", PolicyArn=arn))["Versions"]
    ] == ["v1"]

    async def names(**members: Any) -> list[str]:
        return [each["PolicyName"] for each in (await iam.call("ListPolicies", **members))["Policies"]]

    assert await names(Scope="Local") == ["p"]
    assert await names(OnlyAttached=True) == ["p"]
    assert await names(PathPrefix="/t/") == ["p"]
    assert len(await names()) == 5
    assert "AmazonSageMakerFullAccess" in await names(Scope="AWS")
    with pytest.raises(ClientError, match="attached to entities"):
        await iam.call("DeletePolicy", PolicyArn=arn)
    await iam.call("DetachUserPolicy", UserName="ann", PolicyArn=arn)
    await iam.call("DeletePolicy", PolicyArn=arn)


async def test_aws_managed_policies_compile(iam: QueryClient) -> None:
    for policy in (await iam.call("ListPolicies", Scope="AWS"))["Policies"]:
        version = await iam.call("GetPolicyVersion", PolicyArn=policy["Arn"], VersionId="v1")
        document = unquote(version["PolicyVersion"]["Document"])
        reply = await iam.call("SimulateCustomPolicy", PolicyInputList=[document], ActionNames=["ec2:Fly"])
        expected = "allowed" if policy["Arn"] == ADMIN else "implicitDeny"
        assert reply["EvaluationResults"][0]["EvalDecision"] == expected


# --- Permissions ---------------------------------------------------------------------------------------


async def test_who_may_not_is_told_so_and_no_more(iam: QueryClient, store: IdentityStore) -> None:
    ann = as_(iam, await user(store, "ann"))
    for operation, members in (
        ("GetUser", {"UserName": "bob"}),
        ("CreateUser", {"UserName": "ann"}),
        ("CreateAccessKey", {}),
        ("ListUsers", {}),
        ("AttachUserPolicy", {"UserName": "ann", "PolicyArn": ADMIN}),
        ("PutUserPolicy", {"UserName": "ann", "PolicyName": "p", "PolicyDocument": "{}"}),
        ("ListPolicies", {}),
        ("SimulateCustomPolicy", {"PolicyInputList": [POLICY], "ActionNames": ["a:b"]}),
        ("GetAccessKeyLastUsed", {"AccessKeyId": "AKIA" + "A" * 16}),
    ):
        with pytest.raises(ClientError) as caught:
            await ann.call(operation, **members)
        assert code(caught.value) == ("AccessDenied", 403), operation


async def test_every_operation_asks_for_permission(iam: QueryClient, store: IdentityStore) -> None:
    """With members that are right for all of them; none may answer someone without any permission."""
    ann = await user(store, "ann")
    members = (
        f"UserName=ann&RoleName=r&PolicyName=p&PolicyArn={ADMIN}&VersionId=v1&AccessKeyId=AKIAAAAAAAAAAAAAAAAA"
        f"&Status=Active&PolicySourceArn={ann.principal_arn}&ActionNames.member.1=a:b&TagKeys.member.1=a"
        "&Tags.member.1.Key=a&Tags.member.1.Value=b&PolicyDocument=d&AssumeRolePolicyDocument=d"
        f"&PolicyInputList.member.1=d&GroupName=g&InstanceProfileName=i&SerialNumber={HERE}:mfa/ann"
    )
    for operation in OPERATIONS:
        status, _, reply = await iam.api.answer(f"Action={operation}&{members}".encode(), ann, "r")
        assert (status, b"<Code>AccessDenied</Code>" in reply) == (403, True), (operation, reply)


async def test_permission_is_for_the_very_resource(iam: QueryClient, store: IdentityStore) -> None:
    document = allow("iam:GetUser", "iam:CreateUser", resource=f"arn:aws:iam::{ACCOUNT}:user/team/*")
    ann = as_(iam, await user(store, "ann", document=document))
    await user(store, "bob", path="/team/")
    assert (await ann.call("GetUser", UserName="bob"))["User"]["Path"] == "/team/"
    await ann.call("CreateUser", UserName="carl", Path="/team/")
    with pytest.raises(ClientError, match=r"not authorized to perform: iam:GetUser on resource: .*:user/ann"):
        await ann.call("GetUser")
    with pytest.raises(ClientError, match="not authorized"):
        await ann.call("CreateUser", UserName="dora")


async def test_permission_may_depend_on_tags_and_policies(iam: QueryClient, store: IdentityStore) -> None:
    own_team = {"StringEquals": {"aws:ResourceTag/team": "${aws:PrincipalTag/team}"}}
    await user(store, "bob", tags={"team": "red"})
    ann = await user(store, "ann", document=allow("iam:GetUser", Condition=own_team), tags={"team": "red"})
    carl = dataclasses.replace(ann, session_tags={"team": "blue"})
    await as_(iam, ann).call("GetUser", UserName="bob")
    with pytest.raises(ClientError, match="not authorized"):
        await as_(iam, carl).call("GetUser", UserName="bob")
    read_only = {"ArnEquals": {"iam:PolicyARN": "arn:aws:iam::aws:policy/AmazonSageMakerReadOnly"}}
    tagged = {"StringEquals": {"aws:RequestTag/team": "red"}}
    await store.put_inline_policy(
        User, ACCOUNT, "ann", "own", allow("iam:AttachUserPolicy", Condition=read_only)
    )
    await store.put_inline_policy(User, ACCOUNT, "ann", "more", allow("iam:CreateUser", Condition=tagged))
    attach = {"UserName": "ann", "PolicyArn": "arn:aws:iam::aws:policy/AmazonSageMakerReadOnly"}
    await as_(iam, ann).call("AttachUserPolicy", **attach)
    await as_(iam, ann).call("CreateUser", UserName="d", Tags=[{"Key": "team", "Value": "red"}])
    for operation, members in (
        ("AttachUserPolicy", {**attach, "PolicyArn": ADMIN}),
        ("CreateUser", {"UserName": "e"}),
    ):
        with pytest.raises(ClientError, match="not authorized"):
            await as_(iam, ann).call(operation, **members)


async def test_a_user_made_anew_is_another_one(iam: QueryClient, store: IdentityStore) -> None:
    ann = await user(store, "ann")
    await store.delete(User, ACCOUNT, "ann")
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            await as_(iam, ann).call("ListUsers")
        assert code(caught.value) == ("InvalidClientTokenId", 403)
        if not await store.find(User, ACCOUNT):
            await user(store, "ann", document=allow("iam:*"))


async def test_a_session_policy_limits(iam: QueryClient, store: IdentityStore) -> None:
    ann = await user(store, "ann", document=allow("iam:*"))
    limited = dataclasses.replace(ann, is_session=True, session_policy=allow("iam:ListUsers"))
    await as_(iam, limited).call("ListUsers")
    with pytest.raises(ClientError, match="no session policy allows"):
        await as_(iam, limited).call("ListRoles")
    limited = dataclasses.replace(ann, is_session=True, session_policy_arns=["arn:aws:iam::aws:policy/Gone"])
    with pytest.raises(ClientError, match="no session policy allows"):
        await as_(iam, limited).call("ListUsers")


async def test_accounts_do_not_see_each_other(iam: QueryClient) -> None:
    await iam.call("CreateUser", UserName="ann")
    arn = (await iam.call("CreatePolicy", PolicyName="p", PolicyDocument=POLICY))["Policy"]["Arn"]
    key = (await iam.call("CreateAccessKey", UserName="ann"))["AccessKey"]["AccessKeyId"]
    other = as_(iam, OTHER_ROOT)
    assert (await other.call("ListUsers"))["Users"] == []
    for operation, members in (
        ("GetUser", {"UserName": "ann"}),
        ("GetPolicy", {"PolicyArn": arn}),
        ("DeletePolicy", {"PolicyArn": arn}),
        ("GetAccessKeyLastUsed", {"AccessKeyId": key}),
    ):
        with pytest.raises(ClientError):
            await other.call(operation, **members)
    assert (await iam.call("GetPolicy", PolicyArn=arn))["Policy"]["Arn"] == arn


# --- What policies may say -----------------------------------------------------------------------------


async def test_managed_policies_are_of_the_newest_version(iam: QueryClient, store: IdentityStore) -> None:
    """Others may be older, and have no policy variables then."""
    await user(store, "ann")
    await role(store, "r", TRUST)
    newest = json.loads(allow("s3:GetObject", resource="arn:aws:s3:::b/${aws:username}"))
    for old in ({**newest, "Version": "2008-10-17"}, {"Statement": newest["Statement"]}):
        document = json.dumps(old)
        with pytest.raises(
            ClientError, match="Policy document must be version 2012-10-17 or greater"
        ) as caught:
            await iam.call("CreatePolicy", PolicyName="p", PolicyDocument=document)
        assert code(caught.value) == ("MalformedPolicyDocument", 400)
        await iam.call("PutUserPolicy", UserName="ann", PolicyName="p", PolicyDocument=document)
        await iam.call("PutRolePolicy", RoleName="r", PolicyName="p", PolicyDocument=document)
        trust = json.dumps({**old, "Statement": json.loads(TRUST)["Statement"]})
        await iam.call("UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=trust)
        for resource, decision in (("ann", "implicitDeny"), ("${aws:username}", "allowed")):
            reply = await iam.call(
                "SimulatePrincipalPolicy",
                PolicySourceArn=f"{HERE}:user/ann",
                ActionNames=["s3:GetObject"],
                ResourceArns=[f"arn:aws:s3:::b/{resource}"],
            )
            assert reply["EvaluationResults"][0]["EvalDecision"] == decision
    await iam.call("CreatePolicy", PolicyName="p", PolicyDocument=json.dumps(newest))
    for wrong in ("2012-10-18", 2012, None, []):
        document = json.dumps({**newest, "Version": wrong})
        with pytest.raises(ClientError) as caught:
            await iam.call("PutUserPolicy", UserName="ann", PolicyName="p", PolicyDocument=document)
        assert code(caught.value) == ("MalformedPolicyDocument", 400)


def trusting(principal: Any, action: Any = "sts:AssumeRole") -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": action}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@pytest.mark.parametrize(
    "document",
    [
        trusting("*"),
        trusting({"AWS": "*"}),
        trusting({"AWS": [ACCOUNT, f"arn:aws:iam::{OTHER}:root"]}),
        trusting({"AWS": [f"{HERE}:user/ops/ann", f"{HERE}:role/known"]}),
        trusting({"AWS": f"arn:aws:sts::{ACCOUNT}:assumed-role/known/session"}),
        trusting({"AWS": f"arn:aws:sts::{ACCOUNT}:federated-user/ann"}),
        trusting({"Service": ["sagemaker.amazonaws.com", "ec2.amazonaws.com.cn"]}),
        trusting({"Federated": "cognito-identity.amazonaws.com"}, "sts:AssumeRoleWithWebIdentity"),
        trusting({"AWS": ACCOUNT}, ["sts:AssumeRole", "STS:tagsession", "sts:SetSourceIdentity"]),
        trusting({"AWS": ACCOUNT}, ["sts:*", "sts:AssumeRole*"]),
    ],
)
async def test_trust_in_what_exists(iam: QueryClient, store: IdentityStore, document: str) -> None:
    await user(store, "ann", path="/ops/")
    await role(store, "known", TRUST)
    await iam.call("CreateRole", RoleName="r", AssumeRolePolicyDocument=document)
    await iam.call("UpdateAssumeRolePolicy", RoleName="r", PolicyDocument=document)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        *(
            (trusting({"AWS": ["*", arn]}), f'Invalid principal in policy: "AWS":"{arn}"')
            for arn in (
                f"{HERE}:user/bob",
                f"{HERE}:user/ann",  # it has a path
                f"{HERE}:role/ann",
                f"{HERE}:role/r",  # which is being made
                f"arn:aws:iam::{OTHER}:user/ops/ann",
                "arn:aws:iam::999988887777:root",
                "arn:aws:iam::999988887777:role/known",
                f"arn:aws:sts::{ACCOUNT}:assumed-role/unknown/session",
                f"arn:aws:sts::{ACCOUNT}:federated-user/bob",
            )
        ),
        (
            trusting({"AWS": "999988887777"}),
            'Invalid principal in policy: "AWS":"arn:aws:iam::999988887777:root"',
        ),
        (
            trusting({"Service": "sagemaker.example.com"}),
            'Invalid principal in policy: "SERVICE":"sagemaker.example.com"',
        ),
        *(
            (
                trusting({"Federated": name}, "sts:AssumeRoleWithWebIdentity"),
                f'Invalid principal in policy: "FEDERATED":"{name}"',
            )
            for name in (f"{HERE}:oidc-provider/example.com", f"{HERE}:saml-provider/x", "example.com")
        ),
        *(
            (trusting({"AWS": ACCOUNT}, action), "AssumeRole policy may only specify STS AssumeRole actions.")
            for action in ("sts:AssumeRoles", ["sts:AssumeRole", "sts:Foo"], "sts:Foo*", "sts:?")
        ),
    ],
)
async def test_trust_in_what_does_not_exist(
    iam: QueryClient, store: IdentityStore, document: str, said: str
) -> None:
    await user(store, "ann", path="/ops/")
    await role(store, "known", TRUST)
    for operation, members in (
        ("CreateRole", {"RoleName": "r", "AssumeRolePolicyDocument": document}),
        ("UpdateAssumeRolePolicy", {"RoleName": "known", "PolicyDocument": document}),
    ):
        with pytest.raises(ClientError) as caught:
            await iam.call(operation, **members)
        assert code(caught.value) == ("MalformedPolicyDocument", 400)
        assert caught.value.response["Error"]["Message"] == said
    assert [each["RoleName"] for each in (await iam.call("ListRoles"))["Roles"]] == ["known"]


def test_every_action_of_sts_is_known() -> None:
    model = botocore.session.get_session().get_service_model("sts")
    assert {f"sts:{name}".lower() for name in model.operation_names} <= STS_ACTIONS


# --- What tools look for before they delete ------------------------------------------------------------


async def refused(iam: QueryClient, operation: str, **members: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        await iam.call(operation, **members)
    return code(caught.value)


async def test_a_user_is_cleaned_up_as_the_user_guide_says(iam: QueryClient, store: IdentityStore) -> None:
    """What "Deleting an IAM user (AWS CLI)" names, and Terraform's force_destroy does."""
    await user(store, "ann", document=POLICY)
    await iam.call("AttachUserPolicy", UserName="ann", PolicyArn=ADMIN)
    await iam.call("CreateAccessKey", UserName="ann")
    for operation, member in (
        ("ListGroupsForUser", "Groups"),
        ("ListMFADevices", "MFADevices"),
        ("ListSigningCertificates", "Certificates"),
        ("ListSSHPublicKeys", "SSHPublicKeys"),
        ("ListServiceSpecificCredentials", "ServiceSpecificCredentials"),
    ):
        assert await iam.call(operation, UserName="ann") == {member: [], "IsTruncated": False}
        assert await refused(iam, operation, UserName="bob") == ("NoSuchEntity", 404), operation
    for operation, members in (
        ("GetLoginProfile", {}),
        ("DeleteLoginProfile", {}),
        ("DeactivateMFADevice", {"SerialNumber": f"{HERE}:mfa/ann"}),
        ("RemoveUserFromGroup", {"GroupName": "g"}),
    ):
        found = await refused(iam, operation, UserName="ann", **members)
        assert found == ("NoSuchEntity", 404), operation
    for key in (await iam.call("ListAccessKeys", UserName="ann"))["AccessKeyMetadata"]:
        await iam.call("DeleteAccessKey", UserName="ann", AccessKeyId=key["AccessKeyId"])
    for name in (await iam.call("ListUserPolicies", UserName="ann"))["PolicyNames"]:
        await iam.call("DeleteUserPolicy", UserName="ann", PolicyName=name)
    for policy in (await iam.call("ListAttachedUserPolicies", UserName="ann"))["AttachedPolicies"]:
        await iam.call("DetachUserPolicy", UserName="ann", PolicyArn=policy["PolicyArn"])
    await iam.call("DeleteUser", UserName="ann")


async def test_a_role_is_cleaned_up(iam: QueryClient, store: IdentityStore) -> None:
    await role(store, "r", TRUST)
    empty = {"InstanceProfiles": [], "IsTruncated": False}
    assert await iam.call("ListInstanceProfilesForRole", RoleName="r") == empty
    assert await refused(iam, "ListInstanceProfilesForRole", RoleName="x") == ("NoSuchEntity", 404)
    named = {"InstanceProfileName": "r"}
    assert await refused(iam, "GetInstanceProfile", **named) == ("NoSuchEntity", 404)
    assert await refused(iam, "RemoveRoleFromInstanceProfile", RoleName="r", **named) == ("NoSuchEntity", 404)
    await iam.call("DeleteRole", RoleName="r")


async def test_a_policy_is_cleaned_up(iam: QueryClient, store: IdentityStore) -> None:
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    made = await iam.call("CreatePolicy", PolicyName="p", PolicyDocument=POLICY, Tags=tags)
    arn = made["Policy"]["Arn"]
    assert (await iam.call("ListPolicyTags", PolicyArn=arn))["Tags"] == tags
    none = {"PolicyGroups": [], "PolicyUsers": [], "PolicyRoles": [], "IsTruncated": False}
    assert await iam.call("ListEntitiesForPolicy", PolicyArn=arn) == none
    for name in ("bea", "ann"):
        await user(store, name, path="/ops/" if name == "ann" else "/")
        await iam.call("AttachUserPolicy", UserName=name, PolicyArn=arn)
    await user(store, "cleo")
    await role(store, "r", TRUST)
    await iam.call("AttachRolePolicy", RoleName="r", PolicyArn=arn)

    async def holders(**members: Any) -> list[str]:
        reply = await iam.call("ListEntitiesForPolicy", PolicyArn=arn, **members)
        users = [each["UserName"] for each in reply["PolicyUsers"]]
        return users + [each["RoleName"] for each in reply["PolicyRoles"]]

    assert await holders() == ["ann", "bea", "r"]
    assert await holders(EntityFilter="User") == ["ann", "bea"]
    assert await holders(EntityFilter="Role") == ["r"]
    assert await holders(EntityFilter="Group") == []
    assert await holders(PathPrefix="/ops/") == ["ann"]
    assert await holders(PolicyUsageFilter="PermissionsBoundary") == []
    first = await iam.call("ListEntitiesForPolicy", PolicyArn=arn, MaxItems=1)
    assert [first["PolicyRoles"][0]["RoleName"], first["IsTruncated"]] == ["r", True]
    assert await holders(Marker=first["Marker"]) == ["ann", "bea"]
    assert await refused(iam, "DeletePolicyVersion", PolicyArn=arn, VersionId="v1") == ("DeleteConflict", 409)
    assert await refused(iam, "DeletePolicyVersion", PolicyArn=arn, VersionId="v2") == ("NoSuchEntity", 404)


async def test_what_an_account_has_none_of(iam: QueryClient, store: IdentityStore) -> None:
    for operation, member in (
        ("ListAccountAliases", "AccountAliases"),
        ("ListGroups", "Groups"),
        ("ListInstanceProfiles", "InstanceProfiles"),
        ("ListOpenIDConnectProviders", "OpenIDConnectProviderList"),
        ("ListSAMLProviders", "SAMLProviderList"),
        ("ListServerCertificates", "ServerCertificateMetadataList"),
        ("ListVirtualMFADevices", "VirtualMFADevices"),
        ("ListMFADevices", "MFADevices"),  # of the root
    ):
        assert (await iam.call(operation))[member] == []
    for operation, members in (
        ("GetGroup", {"GroupName": "g"}),
        ("ListGroupPolicies", {"GroupName": "g"}),
        ("ListAttachedGroupPolicies", {"GroupName": "g"}),
        ("GetAccountPasswordPolicy", {}),
        ("DeleteVirtualMFADevice", {"SerialNumber": f"{HERE}:mfa/ann"}),
    ):
        assert await refused(iam, operation, **members) == ("NoSuchEntity", 404), operation


# --- Simulation ----------------------------------------------------------------------------------------


async def test_a_users_permissions_are_simulated(iam: QueryClient, store: IdentityStore) -> None:
    deny = json.dumps(
        {"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Action": "s3:Put*", "Resource": "*"}}
    )
    conditional = allow("s3:Get*", Condition={"StringEquals": {"aws:RequestedRegion": "eu-west-1"}})
    await user(store, "ann", document=conditional)
    await store.put_inline_policy(User, ACCOUNT, "ann", "deny", deny)
    arn = f"arn:aws:iam::{ACCOUNT}:user/ann"

    async def simulate(**members: Any) -> list[dict[str, Any]]:
        reply = await iam.call("SimulatePrincipalPolicy", PolicySourceArn=arn, **members)
        found: list[dict[str, Any]] = reply["EvaluationResults"]
        return found

    actions = ["s3:GetObject", "s3:PutObject", "sqs:SendMessage"]
    results = await simulate(ActionNames=actions)
    assert [each["EvalDecision"] for each in results] == ["implicitDeny", "explicitDeny", "implicitDeny"]
    assert results[0]["MissingContextValues"] == ["aws:RequestedRegion"]
    (matched,) = results[1]["MatchedStatements"]
    assert (matched["SourcePolicyId"], matched["SourcePolicyType"]) == ("user_ann_deny", "user")
    start, end = matched["StartPosition"]["Column"], matched["EndPosition"]["Column"]
    assert json.loads(deny[start - 1 : end - 1]) == json.loads(deny)["Statement"]
    region = {
        "ContextKeyName": "aws:RequestedRegion",
        "ContextKeyValues": ["eu-west-1"],
        "ContextKeyType": "string",
    }
    results = await simulate(ActionNames=actions, ContextEntries=[region], ResourceArns=["arn:aws:s3:::a/b"])
    assert [each["EvalDecision"] for each in results] == ["allowed", "explicitDeny", "implicitDeny"]
    results = await simulate(ActionNames=["sqs:SendMessage"], PolicyInputList=[allow("sqs:*")])
    assert results[0]["EvalDecision"] == "allowed"
    reply = await iam.call("SimulatePrincipalPolicy", PolicySourceArn=arn, ActionNames=actions, MaxItems=2)
    assert (len(reply["EvaluationResults"]), reply["IsTruncated"]) == (2, True)
    with pytest.raises(ClientError, match="cannot be found"):
        await iam.call(
            "SimulatePrincipalPolicy",
            PolicySourceArn="arn:aws:iam::444455556666:user/ann",
            ActionNames=["a:b"],
        )
    with pytest.raises(ClientError, match="Invalid Entity Arn"):
        await iam.call(
            "SimulatePrincipalPolicy", PolicySourceArn="arn:aws:iam::1:root/xxxx", ActionNames=["a:b"]
        )


ABOUT_CALLER = {
    "aws:username": ("ann", allow("s3:GetObject", Condition={"StringEquals": {"aws:username": "ann"}})),
    "aws:userid": ("AIDAX", allow("s3:GetObject", Condition={"StringLike": {"AWS:UserID": "AIDA*"}})),
    "aws:PrincipalArn": (
        "arn:aws:iam::1:user/ann",
        allow("s3:GetObject", Condition={"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/a*"}}),
    ),
    "aws:PrincipalTag/team": (
        "red",
        allow("s3:GetObject", Condition={"StringEquals": {"aws:PrincipalTag/team": "red"}}),
    ),
    "aws:PrincipalType": (
        "User",
        allow("s3:GetObject", Condition={"StringEquals": {"aws:PrincipalType": ["User"]}}),
    ),
    "aws:PrincipalAccount": (
        "1",
        allow("s3:GetObject", Condition={"StringNotEqualsIfExists": {"aws:PrincipalAccount": "2"}}),
    ),
}


def entry(key: str, *values: str, kind: str = "string") -> dict[str, Any]:
    return {"ContextKeyName": key, "ContextKeyValues": list(values), "ContextKeyType": kind}


@pytest.mark.parametrize("key", ABOUT_CALLER)
async def test_what_is_said_of_the_caller_is_believed(iam: QueryClient, key: str) -> None:
    value, document = ABOUT_CALLER[key]

    async def simulate(*entries: dict[str, Any]) -> tuple[str, list[str]]:
        reply = await iam.call(
            "SimulateCustomPolicy",
            PolicyInputList=[document],
            ActionNames=["s3:GetObject"],
            ContextEntries=list(entries),
        )
        (result,) = reply["EvaluationResults"]
        return result["EvalDecision"], [each.lower() for each in result["MissingContextValues"]]

    assert await simulate(entry(key, value)) == ("allowed", [])
    assert await simulate(entry(key.upper(), value)) == ("allowed", []), "keys have no case"
    undecided, missing = await simulate()
    assert missing == [key.lower()]
    assert undecided == ("allowed" if "IfExists" in document else "implicitDeny")
    assert await simulate(entry(key, "2")) == ("implicitDeny", [])


async def test_what_is_said_of_the_caller_fills_variables(iam: QueryClient, store: IdentityStore) -> None:
    own = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": "arn:aws:s3:::b/${aws:username}/${aws:PrincipalTag/team, 'none'}/*",
        },
    }
    made = await user(store, "ann", document=json.dumps(own))

    async def simulate(operation: str, *entries: dict[str, Any], **members: Any) -> dict[str, Any]:
        reply = await iam.call(
            operation, ActionNames=["s3:GetObject"], ContextEntries=list(entries), **members
        )
        (result,) = reply["EvaluationResults"]
        return dict(result)

    def where(name: str, team: str) -> list[str]:
        return [f"arn:aws:s3:::b/{name}/{team}/x"]

    name, team = entry("aws:username", "bea"), entry("aws:principaltag/TEAM", "red")
    custom = {"PolicyInputList": [json.dumps(own)]}
    result = await simulate("SimulateCustomPolicy", name, team, ResourceArns=where("bea", "red"), **custom)
    assert result["EvalDecision"] == "allowed"
    result = await simulate("SimulateCustomPolicy", name, ResourceArns=where("bea", "none"), **custom)
    assert (result["EvalDecision"], result["MissingContextValues"]) == ("allowed", ["aws:PrincipalTag/team"])
    result = await simulate("SimulateCustomPolicy", ResourceArns=where("simulated", "none"), **custom)
    assert (result["EvalDecision"], result["MissingContextValues"]) == (
        "implicitDeny",
        ["aws:PrincipalTag/team", "aws:username"],
    )
    caller = {"CallerArn": "arn:aws:iam::111122223333:user/cleo"}
    result = await simulate("SimulateCustomPolicy", ResourceArns=where("cleo", "none"), **custom, **caller)
    assert result["EvalDecision"] == "allowed", "the name follows from the caller's ARN"

    source = {"PolicySourceArn": made.principal_arn}
    result = await simulate("SimulatePrincipalPolicy", ResourceArns=where("ann", "none"), **source)
    assert result["EvalDecision"] == "allowed", "the name follows from the user"
    result = await simulate("SimulatePrincipalPolicy", name, ResourceArns=where("ann", "none"), **source)
    assert result["EvalDecision"] == "implicitDeny", "but what is said counts over it"
    result = await simulate("SimulatePrincipalPolicy", name, team, ResourceArns=where("bea", "red"), **source)
    assert result["EvalDecision"] == "allowed"


async def test_the_context_keys_of_policies(iam: QueryClient, store: IdentityStore) -> None:
    """The first is the example of the CLI's reference."""
    example = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": "dynamodb:*",
            "Resource": "arn:aws:dynamodb:us-west-2:123456789012:table/${aws:username}",
            "Condition": {"DateGreaterThan": {"aws:CurrentTime": "2015-08-16T12:00:00Z"}},
        },
    }
    reply = await iam.call("GetContextKeysForCustomPolicy", PolicyInputList=[json.dumps(example)])
    assert reply["ContextKeyNames"] == ["aws:username", "aws:CurrentTime"]
    old = {**example, "Version": "2008-10-17"}
    reply = await iam.call("GetContextKeysForCustomPolicy", PolicyInputList=[json.dumps(old)])
    assert reply["ContextKeyNames"] == ["aws:CurrentTime"], "variables are younger than that version"
    twice = allow(
        "s3:*",
        Condition={
            "StringEquals": {
                "AWS:CURRENTTIME": "x",
                "s3:prefix": ["${aws:PrincipalTag/team, 'a'}", "${*}${$}"],
            },
            "NumericLessThan": {"s3:max-keys": 10},
            "Null": {"aws:TokenIssueTime": True},
        },
    )
    made = await user(store, "ann", document=json.dumps(example))
    reply = await iam.call(
        "GetContextKeysForPrincipalPolicy", PolicySourceArn=made.principal_arn, PolicyInputList=[twice]
    )
    assert reply["ContextKeyNames"] == [
        *("aws:username", "aws:CurrentTime", "s3:prefix", "aws:PrincipalTag/team", "s3:max-keys"),
        "aws:TokenIssueTime",
    ]
    for members in (
        {"PolicySourceArn": f"{made.principal_arn}x"},
        {"PolicySourceArn": "arn:aws:iam::1:role/x"},
    ):
        with pytest.raises(ClientError) as caught:
            await iam.call("GetContextKeysForPrincipalPolicy", **members)
        assert code(caught.value) == ("NoSuchEntity", 404)
    with pytest.raises(ClientError) as caught:
        await iam.call("GetContextKeysForCustomPolicy", PolicyInputList=["{"])
    assert code(caught.value) == ("InvalidInput", 400)


async def test_what_a_simulation_cannot_do_is_refused(iam: QueryClient, store: IdentityStore) -> None:
    """Simulations have no error of their own for a malformed policy; to leave some out would be another answer."""
    ann = await user(store, "ann")
    with pytest.raises(ClientError, match="not valid JSON") as caught:
        await iam.call("SimulateCustomPolicy", PolicyInputList=["{"], ActionNames=["a:b"])
    assert code(caught.value) == ("InvalidInput", 400)
    with pytest.raises(ClientError, match="does not have PolicyExclusionList") as caught:
        await iam.call(
            "SimulatePrincipalPolicy",
            PolicySourceArn=ann.principal_arn,
            ActionNames=["a:b"],
            PolicyExclusionList=[{"PolicyType": "inline"}],
        )
    assert code(caught.value) == ("InvalidInput", 400)


# --- Condition keys ------------------------------------------------------------------------------------

NEVER_FILLED = {"Condition": {"StringEquals": {"s3:prefixx": "team/"}}}
TRUST_ON_CONDITION = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Principal": {"AWS": ACCOUNT},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"sts:ExternalIdd": "x"}},
        },
    }
)


@pytest.mark.parametrize(
    ("operation", "members", "key"),
    [
        ("PutUserPolicy", {"UserName": "u", "PolicyName": "p", "PolicyDocument": 1}, "s3:prefixx"),
        ("PutRolePolicy", {"RoleName": "r", "PolicyName": "p", "PolicyDocument": 1}, "s3:prefixx"),
        ("CreatePolicy", {"PolicyName": "p", "PolicyDocument": 1}, "s3:prefixx"),
        ("CreateRole", {"RoleName": "q", "AssumeRolePolicyDocument": TRUST_ON_CONDITION}, "sts:ExternalIdd"),
        (
            "UpdateAssumeRolePolicy",
            {"RoleName": "r", "PolicyDocument": TRUST_ON_CONDITION},
            "sts:ExternalIdd",
        ),
    ],
)
async def test_a_policy_may_name_only_condition_keys_that_are_filled(
    iam: QueryClient, store: IdentityStore, operation: str, members: dict[str, Any], key: str
) -> None:
    await user(store, "u")
    await role(store, "r", TRUST)
    document = allow("s3:ListBucket", **NEVER_FILLED)
    given = {name: document if value == 1 else value for name, value in members.items()}
    with pytest.raises(ClientError) as caught:
        await iam.call(operation, **given)
    assert code(caught.value) == ("MalformedPolicyDocument", 400)
    message = caught.value.response["Error"]["Message"]
    assert f"this server never fills the condition key {key}," in message
    assert "aws:SourceIp" in message
    known = {
        name: value.replace(key, key[:-1]) if isinstance(value, str) else value
        for name, value in given.items()
    }
    await iam.call(operation, **known)


async def test_a_simulation_may_name_any_condition_key(iam: QueryClient) -> None:
    reply = await iam.call(
        "SimulateCustomPolicy",
        PolicyInputList=[allow("s3:ListBucket", **NEVER_FILLED)],
        ActionNames=["s3:ListBucket"],
        ContextEntries=[
            {"ContextKeyName": "s3:prefixx", "ContextKeyValues": ["team/"], "ContextKeyType": "string"}
        ],
    )
    assert reply["EvaluationResults"][0]["EvalDecision"] == "allowed"


async def test_a_simulation_knows_keys_of_s3(iam: QueryClient) -> None:
    statement = allow(
        "s3:ListBucket", resource="arn:aws:s3:::data", Condition={"StringLike": {"s3:prefix": "a/*"}}
    )
    for prefix, decision in (("a/b", "allowed"), ("b/", "implicitDeny"), (None, "implicitDeny")):
        entry = {"ContextKeyName": "s3:prefix", "ContextKeyValues": [prefix], "ContextKeyType": "string"}
        reply = await iam.call(
            "SimulateCustomPolicy",
            PolicyInputList=[statement],
            ActionNames=["s3:ListBucket"],
            ResourceArns=["arn:aws:s3:::data"],
            ContextEntries=[] if prefix is None else [entry],
        )
        (result,) = reply["EvaluationResults"]
        assert result["EvalDecision"] == decision
        assert result["MissingContextValues"] == ([] if prefix is not None else ["s3:prefix"])
    reply = await iam.call("GetContextKeysForCustomPolicy", PolicyInputList=[statement])
    assert reply["ContextKeyNames"] == ["s3:prefix"]


async def test_permission_may_depend_on_the_tags_of_a_managed_policy(
    iam: QueryClient, store: IdentityStore
) -> None:
    made = {}
    for team in ("ml", "bi"):
        tags = [{"Key": "team", "Value": team}]
        reply = await iam.call("CreatePolicy", PolicyName=team, PolicyDocument=POLICY, Tags=tags)
        made[team] = reply["Policy"]["Arn"]
    document = allow("iam:*Policy", Condition={"StringEquals": {"aws:ResourceTag/team": "ml"}})
    ann = as_(iam, await user(store, "ann", document=document))
    for operation in ("GetPolicy", "DeletePolicy"):
        with pytest.raises(ClientError) as caught:
            await ann.call(operation, PolicyArn=made["bi"])
        assert code(caught.value) == ("AccessDenied", 403)
        await ann.call(operation, PolicyArn=made["ml"])
