"""`moorage iam user` and `moorage iam role`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from moorage.cli.client import client
from moorage.cli.iam_base import Kind, Misused, command, owner, pages, read_document
from moorage.cli.inspection import print_json, print_table
from moorage.cli.terminal import escape
from moorage.config import Settings


@command
def create_user(settings: Settings, name: str, *, path: str, as_json: bool) -> None:
    _print_made(client(settings, "iam").create_user(UserName=name, Path=path)["User"], as_json=as_json)


@command
def create_role(
    settings: Settings,
    name: str,
    *,
    trust_policy: Path | None,
    trust_account: str | None,
    description: str | None,
    max_session_seconds: int,
    path: str,
    as_json: bool,
) -> None:
    if (trust_policy is None) == (trust_account is None):
        raise Misused("say who may assume it with either --trust-policy or --trust-account")
    document = read_document(trust_policy) if trust_policy is not None else _trusting(trust_account or "")
    made = client(settings, "iam").create_role(
        RoleName=name,
        Path=path,
        AssumeRolePolicyDocument=document,
        MaxSessionDuration=max_session_seconds,
        **({} if description is None else {"Description": description}),
    )
    _print_made(made["Role"], as_json=as_json)


@command
def delete(settings: Settings, *, user: str | None = None, role: str | None = None) -> None:
    found = owner(client(settings, "iam"), user, role)
    found.call("delete_{}")
    print(f"{found.name} is deleted.")


@command
def find(settings: Settings, kind: Kind, *, as_json: bool) -> None:
    noun = kind.lower()
    found = pages(client(settings, "iam"), f"list_{noun}s", f"{kind}s")
    if as_json:
        print_json(found)
        return
    if not found:
        print(f"No {noun}s. `moorage iam {noun} create NAME` makes one.")
        return
    table = Table("Name", "Created", "ARN", box=None, pad_edge=False)
    for each in found:
        table.add_row(escape(each[f"{kind}Name"]), _time(each["CreateDate"]), escape(each["Arn"]))
    print_table(table)


@command
def show(settings: Settings, *, user: str | None = None, role: str | None = None, as_json: bool) -> None:
    found = owner(client(settings, "iam"), user, role)
    document: dict[str, Any] = {found.kind: found.call("get_{}")[found.kind]}
    if found.kind == "User":
        document["AccessKeyMetadata"] = found.pages("list_access_keys", "AccessKeyMetadata")
    document["PolicyNames"] = found.pages("list_{}_policies", "PolicyNames")
    document["AttachedPolicies"] = found.pages("list_attached_{}_policies", "AttachedPolicies")
    if as_json:
        print_json(document)
    else:
        _print_identity(found.kind, document)


def _print_identity(kind: Kind, document: Mapping[str, Any]) -> None:
    identity = document[kind]
    console = Console(soft_wrap=True)

    def line(label: str, text: str) -> None:
        console.print(f"{label:<16} {escape(text)}", highlight=False)

    console.print(f"[bold]{escape(identity[f'{kind}Name'])}[/bold]")
    line("arn", identity["Arn"])
    line("id", identity[f"{kind}Id"])
    line("created", _time(identity["CreateDate"]))
    if identity.get("Description"):
        line("description", identity["Description"])
    if "MaxSessionDuration" in identity:
        line("longest session", f"{identity['MaxSessionDuration']} s")
    for tag in identity.get("Tags", ()):
        line("tag", f"{tag['Key']}={tag['Value']}")
    for key in document.get("AccessKeyMetadata", ()):
        line("key", f"{key['AccessKeyId']}  {key['Status']}  {_time(key['CreateDate'])}")
    for name in document["PolicyNames"]:
        line("inline policy", name)
    for policy in document["AttachedPolicies"]:
        line("policy", policy["PolicyArn"])
    if kind == "Role":
        line("trust policy", json.dumps(identity["AssumeRolePolicyDocument"], indent=2))


def _print_made(identity: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(identity)
    else:
        print(f"{identity['Arn']} is made.")


def _trusting(account_id: str) -> str:
    """The trust policy that leaves it to the policies of an account's users."""
    if not re.fullmatch(r"[0-9]{12}", account_id):
        raise Misused(f"--trust-account takes an account id, twelve digits; not {account_id!r}")
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{account_id}:root"},
        "Action": "sts:AssumeRole",
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def _time(time: Any) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"
