"""`moorage iam`: its commands and their options. What each does is in the module of its subject, `iam_…`."""

from pathlib import Path
from typing import Annotated

import typer

from moorage.cli.iam_policy_commands import policy_app
from moorage.cli.options import ConfigFile, DataDir, Json, Role, User, read_settings

iam_app = typer.Typer(no_args_is_help=True, help="Say who may call, and what: users, roles, keys, policies.")
account_app = typer.Typer(no_args_is_help=True, help="Accounts: each has its own endpoints, users and roles.")
user_app = typer.Typer(no_args_is_help=True, help="Users: who calls with access keys of their own.")
role_app = typer.Typer(no_args_is_help=True, help="Roles: what others may assume with sts:AssumeRole.")
key_app = typer.Typer(no_args_is_help=True, help="Access keys.")
iam_app.add_typer(account_app, name="account")
iam_app.add_typer(user_app, name="user")
iam_app.add_typer(role_app, name="role")
iam_app.add_typer(key_app, name="key")
iam_app.add_typer(policy_app, name="policy")

KeyOwner = Annotated[
    str | None, typer.Option("--user", help="The user's name.", show_default="who the key belongs to")
]
UserName = Annotated[str, typer.Argument(metavar="NAME", help="The user's name.")]
RoleName = Annotated[str, typer.Argument(metavar="NAME", help="The role's name.")]
KeyId = Annotated[str, typer.Argument(metavar="KEY_ID", help="The access key's id.")]
IdentityPath = Annotated[str, typer.Option("--path", help="Its path, such as /team/.")]
Env = Annotated[bool, typer.Option("--env", help="Print `export` lines that make every SDK use the new key.")]


# --- Accounts ------------------------------------------------------------------------------------------


@account_app.command("create")
def account_create(
    name: Annotated[str, typer.Argument(help="What to call it, for people.")],
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
    as_env: Env = False,
) -> None:
    """Make an account, and print its id and the key of its root: the only time that the secret is shown."""
    from moorage.cli import iam_accounts

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(iam_accounts.create(settings, name, as_json=as_json, as_env=as_env))


@account_app.command("list")
def account_list(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the accounts."""
    from moorage.cli import iam_accounts

    raise typer.Exit(iam_accounts.find(read_settings(config, data_dir=data_dir), as_json=as_json))


# --- Users and roles -----------------------------------------------------------------------------------


@user_app.command("create")
def user_create(
    name: UserName,
    path: IdentityPath = "/",
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a user, who may do nothing yet."""
    from moorage.cli import iam_identities

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(iam_identities.create_user(settings, name, path=path, as_json=as_json))


@user_app.command("delete")
def user_delete(name: UserName, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Delete a user who has no keys and no policies any more."""
    from moorage.cli import iam_identities

    raise typer.Exit(iam_identities.delete(read_settings(config, data_dir=data_dir), user=name))


@user_app.command("list")
def user_list(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the users."""
    from moorage.cli import iam_identities

    raise typer.Exit(iam_identities.find(read_settings(config, data_dir=data_dir), "User", as_json=as_json))


@user_app.command("show")
def user_show(
    name: UserName, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Show a user's keys and policies."""
    from moorage.cli import iam_identities

    raise typer.Exit(
        iam_identities.show(read_settings(config, data_dir=data_dir), user=name, as_json=as_json)
    )


@role_app.command("create")
def role_create(
    name: RoleName,
    trust_policy: Annotated[
        Path | None, typer.Option(help="A file with the trust policy: who may assume it; - is stdin.")
    ] = None,
    trust_account: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Trust this account: its users that a policy lets assume it."),
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
    max_session: Annotated[
        int, typer.Option(help="Seconds that a session lasts at most.", min=3600, max=43200)
    ] = 3600,
    path: IdentityPath = "/",
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Make a role, which may do nothing yet."""
    from moorage.cli import iam_identities

    code = iam_identities.create_role(
        read_settings(config, data_dir=data_dir),
        name,
        trust_policy=trust_policy,
        trust_account=trust_account,
        description=description,
        max_session_seconds=max_session,
        path=path,
        as_json=as_json,
    )
    raise typer.Exit(code)


@role_app.command("delete")
def role_delete(name: RoleName, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Delete a role that has no policies any more."""
    from moorage.cli import iam_identities

    raise typer.Exit(iam_identities.delete(read_settings(config, data_dir=data_dir), role=name))


@role_app.command("list")
def role_list(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the roles."""
    from moorage.cli import iam_identities

    raise typer.Exit(iam_identities.find(read_settings(config, data_dir=data_dir), "Role", as_json=as_json))


@role_app.command("show")
def role_show(
    name: RoleName, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Show a role's trust policy, and what its policies are."""
    from moorage.cli import iam_identities

    raise typer.Exit(
        iam_identities.show(read_settings(config, data_dir=data_dir), role=name, as_json=as_json)
    )


# --- Access keys ---------------------------------------------------------------------------------------


@key_app.command("create")
def key_create(
    user: Annotated[
        str | None, typer.Option("--user", help="The user's name.", show_default="who calls")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
    as_env: Env = False,
) -> None:
    """Make an access key, and print it: the only time that the secret is shown."""
    from moorage.cli import iam_keys

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(iam_keys.create(settings, user, as_json=as_json, as_env=as_env))


@key_app.command("list")
def key_list(
    user: Annotated[
        str | None, typer.Option("--user", help="The user's name.", show_default="who calls")
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """List the access keys of a user."""
    from moorage.cli import iam_keys

    raise typer.Exit(iam_keys.find(read_settings(config, data_dir=data_dir), user, as_json=as_json))


@key_app.command("deactivate")
def key_deactivate(
    key_id: KeyId, user: KeyOwner = None, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Refuse an access key from now on, until it is activated again."""
    from moorage.cli import iam_keys

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(iam_keys.set_status(settings, key_id, "Inactive", user=user))


@key_app.command("activate")
def key_activate(
    key_id: KeyId, user: KeyOwner = None, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Accept an access key again."""
    from moorage.cli import iam_keys

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(iam_keys.set_status(settings, key_id, "Active", user=user))


@key_app.command("delete")
def key_delete(
    key_id: KeyId, user: KeyOwner = None, data_dir: DataDir = None, config: ConfigFile = None
) -> None:
    """Delete an access key."""
    from moorage.cli import iam_keys

    raise typer.Exit(iam_keys.delete(read_settings(config, data_dir=data_dir), key_id, user=user))


# --- Simulation ----------------------------------------------------------------------------------------


@iam_app.command("simulate")
def simulate(
    action: Annotated[str, typer.Option(help="Such as sagemaker:InvokeEndpoint.")],
    resource: Annotated[str, typer.Option(help="An ARN, or * for actions that are about no resource.")] = "*",
    user: User = None,
    role: Role = None,
    context: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="What conditions may ask for; repeat a key to give a list."),
    ] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Explain whether a user or role may do something, and which statement of which policy says so."""
    from moorage.cli import iam_simulation

    code = iam_simulation.simulate(
        read_settings(config, data_dir=data_dir),
        action=action,
        resource=resource,
        user=user,
        role=role,
        context=context or [],
        as_json=as_json,
    )
    raise typer.Exit(code)
