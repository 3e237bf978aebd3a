"""`moorage iam account`."""

from rich.table import Table

from moorage.cli.client import PrivateRoutes
from moorage.cli.iam_base import command
from moorage.cli.iam_keys import KeyPrinter
from moorage.cli.inspection import local_time, print_json, print_table
from moorage.cli.terminal import escape
from moorage.config import Settings


@command
def create(settings: Settings, name: str, *, as_json: bool, as_env: bool) -> None:
    printer = KeyPrinter(settings, as_json=as_json, as_env=as_env)
    made = PrivateRoutes(settings).ask("POST", "accounts", name=name)
    account = made["Account"]
    if as_json:
        print_json(made)
    else:
        told = f"Account {account['Id']} ({account['Name']}) is made; this is the key of its root."
        printer.print(made["AccessKey"], profile=account["Id"], told=told)


@command
def find(settings: Settings, *, as_json: bool) -> None:
    found = PrivateRoutes(settings).ask("GET", "accounts")["Accounts"]
    if as_json:
        print_json(found)
        return
    table = Table("Id", "Name", "Created", box=None, pad_edge=False)
    for account in found:
        table.add_row(account["Id"], escape(account["Name"]), local_time(account["CreateDate"]))
    print_table(table)
