"""`moorage iam key`."""

import os
import sys
from collections.abc import Mapping
from typing import Any, Literal

from botocore.exceptions import ClientError
from rich.table import Table

from moorage.cli.client import client, region, server_url
from moorage.cli.environment import exports
from moorage.cli.iam_base import Failed, Misused, command, pages
from moorage.cli.inspection import print_json, print_table
from moorage.cli.terminal import escape
from moorage.config import Settings


class KeyPrinter:
    """Shows a new key. What can go wrong goes wrong before there is one: its secret is shown once.

    Raises:
        Misused: two ways of showing it are asked for.
        NoServer: see `server_url`.
    """

    def __init__(self, settings: Settings, *, as_json: bool, as_env: bool) -> None:
        if as_json and as_env:
            raise Misused("--json and --env cannot be combined")
        self._settings = settings
        self._as_json = as_json
        self._url = None
        if as_env:
            self._url = os.environ.get("AWS_ENDPOINT_URL") or server_url(settings, public=True)

    def print(self, key: Mapping[str, Any], *, profile: str, told: str) -> None:
        """As JSON, as `export` lines, or as a profile of a credentials file."""
        key_id, secret = key["AccessKeyId"], key["SecretAccessKey"]
        if self._as_json:
            print_json(key)
            return
        print(f"{told} Its secret is not shown again.", file=sys.stderr)
        if self._url is not None:
            print(exports(self._settings, self._url, region(self._settings), key_id, secret))
        else:
            print(f"[{profile}]\naws_access_key_id = {key_id}\naws_secret_access_key = {secret}")


@command
def create(settings: Settings, user: str | None, *, as_json: bool, as_env: bool) -> None:
    printer = KeyPrinter(settings, as_json=as_json, as_env=as_env)
    key = client(settings, "iam").create_access_key(**_named(user))["AccessKey"]
    name = key.get("UserName") or "root"
    printer.print(key, profile=name, told=f"This is the new access key of {name}.")


@command
def find(settings: Settings, user: str | None, *, as_json: bool) -> None:
    found = pages(client(settings, "iam"), "list_access_keys", "AccessKeyMetadata", **_named(user))
    if as_json:
        print_json(found)
        return
    if not found:
        print("No access keys. `moorage iam key create` makes one.")
        return
    table = Table("Key id", "User", "Status", "Created", box=None, pad_edge=False)
    for key in found:
        status = f"[{'green' if key['Status'] == 'Active' else 'red'}]{key['Status']}[/]"
        created = f"{key['CreateDate'].astimezone():%Y-%m-%d %H:%M:%S}"
        table.add_row(key["AccessKeyId"], escape(key.get("UserName") or "root"), status, created)
    print_table(table)


@command
def set_status(
    settings: Settings, key_id: str, status: Literal["Active", "Inactive"], *, user: str | None
) -> None:
    iam = client(settings, "iam")
    iam.update_access_key(AccessKeyId=key_id, Status=status, **_owner(iam, key_id, user))
    print(f"{key_id} is {status.lower()}.")


@command
def delete(settings: Settings, key_id: str, *, user: str | None) -> None:
    iam = client(settings, "iam")
    iam.delete_access_key(AccessKeyId=key_id, **_owner(iam, key_id, user))
    print(f"{key_id} is deleted.")


def _owner(iam: Any, key_id: str, user: str | None) -> dict[str, str]:
    if user is not None:
        return _named(user)
    try:
        return _named(iam.get_access_key_last_used(AccessKeyId=key_id).get("UserName"))
    except ClientError as error:
        if error.response["Error"]["Code"] != "AccessDenied":
            raise
        # IAM says the same of a key that is not there.
        raise Failed(
            f"There is no access key {key_id}, or you may not look up whose it is: --user NAME says it."
        ) from error


def _named(user: str | None) -> dict[str, str]:
    return {} if user is None else {"UserName": user}
