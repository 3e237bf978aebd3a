"""`moorage iam policy`."""

import json
from pathlib import Path

from rich.table import Table

from moorage.cli.client import client
from moorage.cli.iam_base import Misused, Owner, command, optional_owner, owner, pages, read_document
from moorage.cli.inspection import print_json, print_table
from moorage.cli.terminal import escape, say
from moorage.config import Settings


@command
def put(settings: Settings, name: str, file: Path, *, user: str | None, role: str | None) -> None:
    iam = client(settings, "iam")
    whose = optional_owner(iam, user, role)
    document = read_document(file)
    if whose is not None:
        whose.call("put_{}_policy", PolicyName=name, PolicyDocument=document)
        print(f"{whose} has the policy {name}.")
    else:
        made = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]
        print(f"{made['Arn']} is made.")


@command
def get(settings: Settings, name: str, *, user: str | None, role: str | None) -> None:
    iam = client(settings, "iam")
    whose = optional_owner(iam, user, role)
    if whose is not None:
        document = whose.call("get_{}_policy", PolicyName=name)["PolicyDocument"]
    else:
        arn = _arn(name)
        version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        document = iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    say(json.dumps(document, indent=2, ensure_ascii=False))


@command
def delete(settings: Settings, name: str, *, user: str | None, role: str | None) -> None:
    iam = client(settings, "iam")
    whose = optional_owner(iam, user, role)
    if whose is not None:
        whose.call("delete_{}_policy", PolicyName=name)
    else:
        iam.delete_policy(PolicyArn=_arn(name))
    print(f"{name} is deleted.")


@command
def attach(settings: Settings, arn: str, *, user: str | None, role: str | None) -> None:
    whose = owner(client(settings, "iam"), user, role)
    whose.call("attach_{}_policy", PolicyArn=_arn(arn))
    print(f"{whose} has the policy {arn}.")


@command
def detach(settings: Settings, arn: str, *, user: str | None, role: str | None) -> None:
    whose = owner(client(settings, "iam"), user, role)
    whose.call("detach_{}_policy", PolicyArn=_arn(arn))
    print(f"{whose} does not have the policy {arn} any more.")


@command
def find(settings: Settings, *, user: str | None, role: str | None, as_json: bool) -> None:
    iam = client(settings, "iam")
    whose = optional_owner(iam, user, role)
    if whose is not None:
        _list_of(whose, as_json=as_json)
        return
    found = pages(iam, "list_policies", "Policies")
    if as_json:
        print_json(found)
        return
    table = Table("Name", box=None, pad_edge=False)
    table.add_column("Attached", justify="right")
    table.add_column("ARN")
    for policy in found:
        attached = str(policy["AttachmentCount"])
        table.add_row(escape(policy["PolicyName"]), attached, escape(policy["Arn"]))
    print_table(table)


def _list_of(whose: Owner, *, as_json: bool) -> None:
    inline = whose.pages("list_{}_policies", "PolicyNames")
    attached = whose.pages("list_attached_{}_policies", "AttachedPolicies")
    if as_json:
        print_json({"PolicyNames": inline, "AttachedPolicies": attached})
        return
    if not inline and not attached:
        print(f"No policies: {whose} may do nothing. `moorage iam policy put` gives one.")
        return
    table = Table("Name", "ARN", box=None, pad_edge=False)
    for name in inline:
        table.add_row(escape(name), "(inline)")
    for policy in attached:
        table.add_row(escape(policy["PolicyName"]), escape(policy["PolicyArn"]))
    print_table(table)


def _arn(name: str) -> str:
    """Raises `Misused` for what cannot be one."""
    if not name.startswith("arn:"):
        raise Misused(
            f"{name} is no ARN of a managed policy; of an inline policy, say whose with --user or --role"
        )
    return name
