"""`moorage iam policy`: its commands and their options. What each does is in `iam_policies`."""

from pathlib import Path
from typing import Annotated

import typer

from moorage.cli.options import ConfigFile, DataDir, Json, Role, User, read_settings

policy_app = typer.Typer(
    no_args_is_help=True,
    help="Policies: inline ones of a user or role, and managed ones, which have an ARN.",
)

PolicyArn = Annotated[str, typer.Argument(metavar="ARN", help="The managed policy's ARN.")]
PolicyName = Annotated[
    str, typer.Argument(metavar="NAME", help="An inline policy's name, or a managed one's ARN.")
]


@policy_app.command("put")
def policy_put(
    name: Annotated[str, typer.Argument(help="The policy's name.")],
    file: Annotated[Path, typer.Option(help="A file with the policy; - is stdin.")],
    user: User = None,
    role: Role = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Give a user or role an inline policy, over one of that name; with neither, make a managed policy."""
    from moorage.cli import iam_policies

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(iam_policies.put(settings, name, file, user=user, role=role))


@policy_app.command("get")
def policy_get(
    name: PolicyName,
    user: User = None,
    role: Role = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Print a policy."""
    from moorage.cli import iam_policies

    raise typer.Exit(iam_policies.get(read_settings(config, data_dir=data_dir), name, user=user, role=role))


@policy_app.command("list")
def policy_list(
    user: User = None,
    role: Role = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """List the policies of a user or role; with neither, the managed policies."""
    from moorage.cli import iam_policies

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(iam_policies.find(settings, user=user, role=role, as_json=as_json))


@policy_app.command("delete")
def policy_delete(
    name: PolicyName,
    user: User = None,
    role: Role = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
) -> None:
    """Delete an inline policy, or a managed one that nobody has any more."""
    from moorage.cli import iam_policies

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(iam_policies.delete(settings, name, user=user, role=role))


@policy_app.command("attach")
def policy_attach(
    arn: PolicyArn, user: User = None, role: Role = None, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Give a user or role a managed policy."""
    from moorage.cli import iam_policies

    raise typer.Exit(iam_policies.attach(read_settings(config, data_dir=data_dir), arn, user=user, role=role))


@policy_app.command("detach")
def policy_detach(
    arn: PolicyArn, user: User = None, role: Role = None, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Take a managed policy from a user or role."""
    from moorage.cli import iam_policies

    raise typer.Exit(iam_policies.detach(read_settings(config, data_dir=data_dir), arn, user=user, role=role))
