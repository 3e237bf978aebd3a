"""`moorage iam`, as a person or a script runs it, against a server that does it."""

import configparser
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import moorage
from tests.serve.test_iam import can, refusal, with_key
from tests.servers import ACCOUNT, MoorageServer, eventually

ENDPOINTS = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint"
READ_ONLY = "arn:aws:iam::aws:policy/AmazonSageMakerReadOnly"


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, indent=2)


def allow(action: str, resource: str = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def done(server: MoorageServer, *arguments: str, stdin: str | None = None) -> str:
    """What `moorage iam …` prints, which does what it is asked."""
    ended = moorage(server, "iam", *arguments, stdin=stdin)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def refused(server: MoorageServer, *arguments: str, stdin: str | None = None) -> str:
    """What it says, in one line, when it does not."""
    ended = moorage(server, "iam", *arguments, stdin=stdin)
    assert (ended.returncode, ended.stdout) == (1, "")
    return one_line(ended.stderr)


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("moorage: ")
    return line.removeprefix("moorage: ")


def run_as(exports: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Any command with a key that was printed by `--env`, and without the data directory."""
    lines = [shlex.split(line) for line in exports.splitlines()]
    variables = dict(words[1].split("=", 1) for words in lines if words[0] == "export")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "moorage", *arguments],
        capture_output=True,
        text=True,
        env=inherited | variables,
        timeout=100,
    )


def new_user(server: MoorageServer, name: str, *statements: dict[str, Any]) -> None:
    done(server, "user", "create", name)
    done(server, "policy", "put", "own", "--user", name, "--file", "-", stdin=policy(*statements))


# --- Accounts ------------------------------------------------------------------------------------------


def test_a_new_account_is_used_with_the_key_that_is_printed(server: MoorageServer) -> None:
    made = moorage(server, "iam", "account", "create", "Research & more")
    assert made.returncode == 0, made.stderr
    profile = configparser.RawConfigParser()
    profile.read_string(made.stdout)
    (account_id,) = profile.sections()
    key_id, secret = (profile[account_id][name] for name in ("aws_access_key_id", "aws_secret_access_key"))
    assert f"Account {account_id} (Research & more) is made" in made.stderr
    sts = with_key(server, "sts", key_id, secret)
    eventually(lambda: can(sts.get_caller_identity))
    identity = sts.get_caller_identity()
    assert (identity["Account"], identity["Arn"]) == (account_id, f"arn:aws:iam::{account_id}:root")
    listed = json.loads(done(server, "account", "list", "--json"))
    assert (account_id, "Research & more") in [(each["Id"], each["Name"]) for each in listed]
    assert secret not in done(server, "account", "list") + server.log


def test_another_account_makes_and_sees_none(server: MoorageServer) -> None:
    exports = done(server, "account", "create", "tenant", "--env")
    eventually(lambda: run_as(exports, "iam", "user", "list").returncode == 0)
    second = run_as(exports, "iam", "key", "create", "--env")
    assert f"export AWS_ENDPOINT_URL={server.url}\n" in second.stdout, second.stderr
    eventually(lambda: run_as(second.stdout, "iam", "user", "list").returncode == 0)
    for arguments in (("list",), ("create", "more")):
        ended = run_as(exports, "iam", "account", *arguments)
        assert ended.returncode == 1
        assert f"this installation's first account, {ACCOUNT}" in one_line(ended.stderr)
    assert "name must be 1 to 50" in refused(server, "account", "create", "ü")


# --- Users and their keys ------------------------------------------------------------------------------


def test_a_user_may_do_what_its_policy_says_until_its_key_is_inactive(server: MoorageServer) -> None:
    new_user(server, "cli-caller", allow("sagemaker:ListEndpoints"))
    exports = done(server, "key", "create", "--user", "cli-caller", "--env")
    eventually(lambda: run_as(exports, "endpoints", "--json").returncode == 0)
    denied = run_as(exports, "iam", "user", "list")
    assert denied.returncode == 1
    assert one_line(denied.stderr).startswith(
        f"AccessDenied: User: arn:aws:iam::{ACCOUNT}:user/cli-caller is not authorized to perform: iam:ListUsers"
    )
    made = json.loads(done(server, "key", "create", "--user", "cli-caller", "--json"))
    sagemaker = with_key(server, "sagemaker", made["AccessKeyId"], made["SecretAccessKey"])
    eventually(lambda: can(sagemaker.list_endpoints))

    assert done(server, "key", "deactivate", made["AccessKeyId"]).endswith(" is inactive.\n")
    since = time.monotonic()
    eventually(lambda: not can(sagemaker.list_endpoints), timeout=5)
    assert time.monotonic() - since < 1.0
    assert refusal(sagemaker.list_endpoints)[0] == "UnrecognizedClientException"
    listed = json.loads(done(server, "key", "list", "--user", "cli-caller", "--json"))
    assert {each["AccessKeyId"]: each["Status"] for each in listed}[made["AccessKeyId"]] == "Inactive"
    assert "Inactive" in done(server, "key", "list", "--user", "cli-caller")

    done(server, "key", "activate", made["AccessKeyId"], "--user", "cli-caller")
    eventually(lambda: can(sagemaker.list_endpoints))
    done(server, "key", "delete", made["AccessKeyId"])
    eventually(lambda: not can(sagemaker.list_endpoints))
    assert f"There is no access key {made['AccessKeyId']}" in refused(
        server, "key", "delete", made["AccessKeyId"]
    )


def test_users_are_listed_shown_and_deleted(server: MoorageServer) -> None:
    assert done(server, "user", "create", "cli-ann", "--path", "/ops/") == (
        f"arn:aws:iam::{ACCOUNT}:user/ops/cli-ann is made.\n"
    )
    assert refused(server, "user", "create", "CLI-ANN").startswith("EntityAlreadyExists: ")
    assert "No policies" in done(server, "policy", "list", "--user", "cli-ann")
    done(server, "policy", "attach", READ_ONLY, "--user", "cli-ann")
    key = json.loads(done(server, "key", "create", "--user", "cli-ann", "--json"))
    shown = json.loads(done(server, "user", "show", "cli-ann", "--json"))
    assert shown["User"]["Path"] == "/ops/"
    assert [each["AccessKeyId"] for each in shown["AccessKeyMetadata"]] == [key["AccessKeyId"]]
    assert (shown["PolicyNames"], shown["AttachedPolicies"][0]["PolicyArn"]) == ([], READ_ONLY)
    for_people = done(server, "user", "show", "cli-ann")
    assert READ_ONLY in for_people
    assert key["AccessKeyId"] in for_people
    assert key["SecretAccessKey"] not in for_people
    assert "DeleteConflict: " in refused(server, "user", "delete", "cli-ann")
    done(server, "key", "delete", key["AccessKeyId"])
    done(server, "policy", "detach", READ_ONLY, "--user", "cli-ann")
    assert "user/ops/cli-ann" in done(server, "user", "list")
    assert done(server, "user", "delete", "cli-ann") == "cli-ann is deleted.\n"
    assert "cli-ann" not in done(server, "user", "list", "--json")
    assert refused(server, "user", "show", "cli-ann").startswith("NoSuchEntity: ")


# --- Roles and policies --------------------------------------------------------------------------------


def test_a_role_says_who_may_assume_it(server: MoorageServer) -> None:
    made = json.loads(done(server, "role", "create", "cli-role", "--trust-account", ACCOUNT, "--json"))
    (statement,) = made["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Principal"] == {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    trust = policy({"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"})
    done(server, "role", "create", "cli-open", "--trust-policy", "-", "--description", "a [b]", stdin=trust)
    shown = json.loads(done(server, "role", "show", "cli-open", "--json"))
    assert shown["Role"]["AssumeRolePolicyDocument"] == json.loads(trust)
    assert "a [b]" in done(server, "role", "show", "cli-open")
    names = [each["RoleName"] for each in json.loads(done(server, "role", "list", "--json"))]
    assert {"cli-role", "cli-open"} <= set(names)
    for name in ("cli-role", "cli-open"):
        done(server, "role", "delete", name)
    assert "cli-open" not in done(server, "role", "list")
    refusal = refused(
        server, "role", "create", "cli-role", "--trust-policy", "-", stdin=policy(allow("s3:*"))
    )
    assert refusal.startswith("MalformedPolicyDocument: ")


def test_managed_and_inline_policies(server: MoorageServer, tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(policy(allow("s3:Get*")))
    arn = done(server, "policy", "put", "cli-shared", "--file", str(file)).removesuffix(" is made.\n")
    assert arn == f"arn:aws:iam::{ACCOUNT}:policy/cli-shared"
    done(server, "role", "create", "cli-holder", "--trust-account", ACCOUNT)
    done(server, "policy", "attach", arn, "--role", "cli-holder")
    done(server, "policy", "put", "own", "--role", "cli-holder", "--file", str(file))
    listed = json.loads(done(server, "policy", "list", "--role", "cli-holder", "--json"))
    assert listed["PolicyNames"] == ["own"]
    assert [each["PolicyArn"] for each in listed["AttachedPolicies"]] == [arn]
    for named in ((arn,), ("own", "--role", "cli-holder")):
        assert json.loads(done(server, "policy", "get", *named)) == json.loads(file.read_text())
    assert arn in done(server, "policy", "list")
    assert "DeleteConflict: " in refused(server, "policy", "delete", arn)
    done(server, "policy", "detach", arn, "--role", "cli-holder")
    done(server, "policy", "delete", arn)
    done(server, "policy", "delete", "own", "--role", "cli-holder")
    assert "No policies" in done(server, "policy", "list", "--role", "cli-holder")
    done(server, "role", "delete", "cli-holder")


# --- Simulation ----------------------------------------------------------------------------------------


def simulated(server: MoorageServer, *arguments: str) -> tuple[str, dict[str, Any] | None]:
    """The decision, and the statement that decided."""
    found = json.loads(done(server, "simulate", "--json", *arguments))
    statements = found["Statements"]
    return found["EvalDecision"], statements[0] if statements else None


def test_simulate_names_the_statement_that_decided(server: MoorageServer) -> None:
    invoking = ("--action", "sagemaker:InvokeEndpoint")
    inside = allow("sagemaker:InvokeEndpoint", f"{ENDPOINTS}/mine-*", Sid="Mine")
    outside = {
        "Effect": "Deny",
        "Action": "sagemaker:*",
        "Resource": "*",
        "Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
    }
    new_user(server, "cli-simulated", allow("s3:ListBucket"), inside, outside)
    who = ("--user", "cli-simulated")
    here = ("--context", "aws:SourceIp=10.1.2.3")

    decision, by = simulated(server, *who, *invoking, "--resource", f"{ENDPOINTS}/mine-1", *here)
    assert (decision, by) == (
        "allowed",
        {"PolicyName": "own", "Number": 2, "Of": 3, "Sid": "Mine", "Statement": inside},
    )
    decision, by = simulated(server, *who, *invoking, "--resource", f"{ENDPOINTS}/mine-1")
    assert (decision, by) == (
        "explicitDeny",
        {"PolicyName": "own", "Number": 3, "Of": 3, "Statement": outside},
    )
    assert simulated(server, *who, *invoking, "--resource", f"{ENDPOINTS}/x", *here) == ("implicitDeny", None)

    for_people = done(server, "simulate", *who, *invoking, "--resource", f"{ENDPOINTS}/mine-1", *here)
    assert for_people.startswith(f"allowed  sagemaker:InvokeEndpoint on {ENDPOINTS}/mine-1, for user cli-sim")
    assert "by statement 2 of 3 (Mine) of inline policy own:" in for_people
    for_people = done(server, "simulate", *who, *invoking, "--resource", f"{ENDPOINTS}/mine-1")
    assert "--context aws:SourceIp=VALUE" in for_people


def test_simulate_says_what_would_allow_it(server: MoorageServer) -> None:
    done(server, "role", "create", "cli-poor", "--trust-account", ACCOUNT)
    asked = ("--role", "cli-poor", "--action", "s3:GetObject", "--resource", "arn:aws:s3:::models/a")
    for_people = done(server, "simulate", *asked)
    assert "`moorage iam policy put NAME --role cli-poor --file FILE` with:" in for_people
    hint = for_people[for_people.index("{") :]
    assert json.loads(hint) == json.loads(policy(allow("s3:GetObject", "arn:aws:s3:::models/a")))
    done(server, "policy", "put", "hinted", "--role", "cli-poor", "--file", "-", stdin=hint)
    decision, by = simulated(server, *asked)
    assert (decision, by and by["PolicyName"]) == ("allowed", "hinted")


def test_simulate_reads_attached_policies(server: MoorageServer) -> None:
    """Two of one name: AWS's, and one's own that denies."""
    done(server, "user", "create", "cli-attached")
    written = policy(allow("sagemaker:List*"), {**allow("sagemaker:Describe*"), "Effect": "Deny"})
    own = f"arn:aws:iam::{ACCOUNT}:policy/AmazonSageMakerReadOnly"
    done(server, "policy", "put", "AmazonSageMakerReadOnly", "--file", "-", stdin=written)
    asked = (
        "--user",
        "cli-attached",
        "--action",
        "sagemaker:DescribeEndpoint",
        "--resource",
        f"{ENDPOINTS}/x",
    )
    done(server, "policy", "attach", READ_ONLY, "--user", "cli-attached")
    decision, by = simulated(server, *asked)
    assert (decision, by and by["PolicyArn"]) == ("allowed", READ_ONLY)
    done(server, "policy", "attach", own, "--user", "cli-attached")
    decision, by = simulated(server, *asked)
    assert (decision, by and (by["PolicyArn"], by["Number"])) == ("explicitDeny", (own, 2))


# --- What is wrong -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("account", "create", "x", "--json", "--env"), "--json and --env cannot be combined"),
        (("role", "create", "x"), "either --trust-policy or --trust-account"),
        (("role", "create", "x", "--trust-account", "12"), "twelve digits; not '12'"),
        (("policy", "put", "x", "--user", "y", "--file", "/not/there"), "cannot read /not/there"),
        (("policy", "get", "x"), "x is no ARN"),
        (("policy", "attach", READ_ONLY), "--user NAME or --role NAME"),
        (("policy", "list", "--user", "x", "--role", "y"), "--user and --role cannot be combined"),
        (("simulate", "--user", "x", "--action", "InvokeEndpoint"), "such as sagemaker:InvokeEndpoint"),
        (("simulate", "--user", "x", "--action", "s3:Get", "--resource", "x"), "takes an ARN of six parts"),
        (("simulate", "--user", "x", "--action", "s3:Get", "--context", "k"), "--context takes KEY=VALUE"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(
    server: MoorageServer, arguments: tuple[str, ...], said: str
) -> None:
    ended = moorage(server, "iam", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert said in one_line(ended.stderr)


def test_names_that_are_refused_and_no_server(server: MoorageServer, tmp_path: Path) -> None:
    assert refused(server, "user", "create", "").startswith("Parameter validation failed: Invalid length")
    assert "userName" in refused(server, "user", "create", "a b")
    server_less = MoorageServer(tmp_path / "nothing")
    assert "`moorage serve`" in refused(server_less, "user", "list")
