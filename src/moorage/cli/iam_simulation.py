"""`moorage iam simulate`: SimulatePrincipalPolicy, with the statement that decided and what to do about it."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from botocore.handlers import json_decode_policies
from rich.console import Console

from moorage.cli.client import client
from moorage.cli.iam_base import Failed, Misused, Owner, command, owner
from moorage.cli.inspection import print_json
from moorage.cli.terminal import escape
from moorage.config import Settings

_STYLES = {"allowed": "green", "explicitDeny": "red", "implicitDeny": "yellow"}
_AWS = "arn:aws:iam::aws:policy/"


@command
def simulate(
    settings: Settings,
    *,
    action: str,
    resource: str,
    user: str | None,
    role: str | None,
    context: Sequence[str],
    as_json: bool,
) -> None:
    iam = client(settings, "iam")
    # Where a statement is, is told of a policy's text, not of what botocore would make of it.
    iam.meta.events.unregister("after-call.iam", json_decode_policies)
    whose = owner(iam, user, role)
    _check(action, resource)
    entries = _context_entries(context)
    arn = whose.call("get_{}")[whose.kind]["Arn"]
    (result,) = iam.simulate_principal_policy(
        PolicySourceArn=arn, ActionNames=[action], ResourceArns=[resource], ContextEntries=entries
    )["EvaluationResults"]
    statements = [_statement(whose, matched) for matched in result["MatchedStatements"]]
    missing = result.get("MissingContextValues", [])
    allowing = _allowing(action, resource) if result["EvalDecision"] == "implicitDeny" else None
    if as_json:
        hint = {} if allowing is None else {"AllowingPolicy": allowing}
        print_json({**result, "Statements": statements, **hint})
        return
    console = Console(soft_wrap=True, highlight=False)
    decision = result["EvalDecision"]
    console.print(
        f"[{_STYLES[decision]}]{decision}[/]  {escape(action)} on {escape(resource)}, for {escape(str(whose))}"
    )
    for statement in statements:
        _print_statement(console, statement)
    for key in missing:
        console.print(escape(f"Conditions ask for {key}, too: --context {key}=VALUE says what it is."))
    if allowing is not None:
        _print_hint(console, whose, allowing)


def _check(action: str, resource: str) -> None:
    """Raises `Misused` for what no request could be."""
    if not re.fullmatch(r"[A-Za-z0-9-]+:[A-Za-z0-9._-]+", action):
        raise Misused(
            f"--action takes a service's prefix and an operation, such as sagemaker:InvokeEndpoint; not {action!r}"
        )
    if resource != "*" and not re.fullmatch(r"arn:[^:]*:[^:]+:[^:]*:[^:]*:.+", resource):
        raise Misused(f"--resource takes an ARN of six parts, or *; not {resource!r}")


def _context_entries(context: Sequence[str]) -> list[dict[str, Any]]:
    """Raises `Misused` for what is not `key=value`."""
    values: dict[str, list[str]] = {}
    for each in context:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise Misused(f"--context takes KEY=VALUE, such as aws:SourceIp=192.0.2.1; not {each!r}")
        values.setdefault(key, []).append(value)
    return [
        {
            "ContextKeyName": key,
            "ContextKeyValues": given,
            "ContextKeyType": "string" if len(given) == 1 else "stringList",
        }
        for key, given in values.items()
    ]


# --- The statement that decided ------------------------------------------------------------------------


def _statement(whose: Owner, matched: Mapping[str, Any]) -> dict[str, Any]:
    """What to tell of it. Raises `Failed` if its policy has changed since."""
    source, kind = matched["SourcePolicyId"], matched["SourcePolicyType"]
    policy = _inline(whose, source) if kind in ("user", "role") else _managed(whose, source, kind)
    text = policy.pop("Document")
    try:
        statement = json.loads(_between(text, matched["StartPosition"], matched["EndPosition"]))
        statements = json.loads(text)["Statement"]
        statements = statements if isinstance(statements, list) else [statements]
        number = statements.index(statement) + 1
    except ValueError:
        raise _changed(source) from None
    sid = {"Sid": statement["Sid"]} if statement.get("Sid") else {}
    return {**policy, "Number": number, "Of": len(statements), **sid, "Statement": statement}


def _inline(whose: Owner, source: str) -> dict[str, Any]:
    name = source.split("_", 1)[1].removeprefix(f"{whose.name}_")
    document = whose.call("get_{}_policy", PolicyName=name)["PolicyDocument"]
    return {"PolicyName": name, "Document": unquote(document)}


def _managed(whose: Owner, name: str, kind: str) -> dict[str, Any]:
    arns = [
        policy["PolicyArn"]
        for policy in whose.pages("list_attached_{}_policies", "AttachedPolicies")
        if policy["PolicyName"] == name and policy["PolicyArn"].startswith(_AWS) == (kind == "aws-managed")
    ]
    if not arns:
        raise _changed(name)
    version = whose.iam.get_policy(PolicyArn=arns[0])["Policy"]["DefaultVersionId"]
    found = whose.iam.get_policy_version(PolicyArn=arns[0], VersionId=version)["PolicyVersion"]
    return {"PolicyName": name, "PolicyArn": arns[0], "Document": unquote(found["Document"])}


def _between(text: str, start: Mapping[str, int], end: Mapping[str, int]) -> str:
    """The part of a text between two positions, which count from 1."""
    lines = text.split("\n")
    first, last = (
        sum(len(line) + 1 for line in lines[: position["Line"] - 1]) + position["Column"] - 1
        for position in (start, end)
    )
    return text[first:last]


def _changed(policy: str) -> Failed:
    return Failed(f"The policy {policy} was changed in the meantime; please ask again.")


# --- For people ----------------------------------------------------------------------------------------


def _print_statement(console: Console, found: Mapping[str, Any]) -> None:
    called = f" ({found['Sid']})" if "Sid" in found else ""
    policy = found.get("PolicyArn") or f"inline policy {found['PolicyName']}"
    console.print(escape(f"by statement {found['Number']} of {found['Of']}{called} of {policy}:"))
    console.print(escape(json.dumps(found["Statement"], indent=2, ensure_ascii=False)))


def _print_hint(console: Console, whose: Owner, allowing: Mapping[str, Any]) -> None:
    console.print("No statement of its policies allows it.")
    console.print(escape(f"To allow it, `moorage iam policy put NAME {whose.option} --file FILE` with:"))
    console.print(escape(json.dumps(allowing, indent=2)))


def _allowing(action: str, resource: str) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action, "Resource": resource}
    return {"Version": "2012-10-17", "Statement": [statement]}
