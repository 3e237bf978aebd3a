"""`moorage`: the commands and their options. What each does is in the module of its name."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from moorage.config import Settings, SettingsError, load

OK, FAILED, USAGE = 0, 1, 2
"""Exit codes: done; the thing asked for failed; the command line or a setting is wrong."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve and call machine-learning models through the Amazon SageMaker AI Runtime API.",
)

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Directory of all state.", show_default="./moorage-data"),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file.", show_default="./moorage.toml if it exists"),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
Name = Annotated[str, typer.Argument(help="The endpoint's name.")]


def main() -> None:
    """The entry point of the `moorage` command."""
    try:
        app()
    except SettingsError as error:
        print(f"moorage: {error}", file=sys.stderr)
        sys.exit(USAGE)
    except KeyboardInterrupt:
        sys.exit(130)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8080")
    ] = None,
    data_dir: DataDir = None,
    workers: Annotated[int | None, typer.Option(help="Gateway processes.", show_default="1")] = None,
    database_url: Annotated[
        str | None,
        typer.Option(help="SQLAlchemy URL of the state.", show_default="SQLite in the data directory"),
    ] = None,
    s3_endpoint: Annotated[
        str | None,
        typer.Option(
            help="URL of an S3 to use; its credentials come from the AWS_* variables.",
            show_default="the embedded one",
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Run the server until ^C or SIGTERM; a second signal hurries it."""
    settings = read_settings(
        config,
        host=host,
        port=port,
        data_dir=data_dir,
        workers=workers,
        database_url=database_url,
        s3_endpoint=s3_endpoint,
    )
    # A process of its own, without what the command line imports: it stays for as long as the server does.
    environment = {**os.environ, "MOORAGE_SETTINGS": settings.to_json()}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "moorage.runtime.serve"], environment)


@app.command()
def env(data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Print the `export` lines that make the aws CLI and every SDK talk to the running server."""
    from moorage.cli import environment

    raise typer.Exit(environment.print_exports(read_settings(config, data_dir=data_dir)))


@app.command()
def deploy(
    model: Annotated[Path, typer.Argument(help="A model directory, or a model.tar.gz.")],
    name: Annotated[str, typer.Option("--name", help="The endpoint's name.")],
    instances: Annotated[int, typer.Option(help="Number of instances.", min=1)] = 1,
    image: Annotated[str, typer.Option(help="The container image.")] = "moorage/modelhost",
    variables: Annotated[
        list[str] | None, typer.Option("--env", help="K=V for the container; may be repeated.")
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for InService.")] = 900.0,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Upload a model, make an endpoint of it (or update the one there is), and wait until it is in service."""
    from moorage.cli import deployment

    settings = read_settings(config, data_dir=data_dir)
    code = deployment.deploy(
        settings,
        model=model,
        name=name,
        instances=instances,
        image=image,
        variables=variables or [],
        timeout_seconds=timeout,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def invoke(
    name: Name,
    body: Annotated[str | None, typer.Option(help="The request's body.")] = None,
    file: Annotated[Path | None, typer.Option(help="A file with the request's body; - is stdin.")] = None,
    content_type: Annotated[str, typer.Option(help="MIME type of the body.")] = "application/json",
    accept: Annotated[str | None, typer.Option(help="MIME type wanted of the reply.")] = None,
    target_variant: Annotated[str | None, typer.Option(help="The production variant to call.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the reply's parts as they come.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Call an endpoint and print the reply's body."""
    from moorage.cli import invocation

    settings = read_settings(config, data_dir=data_dir)
    code = invocation.invoke(
        settings,
        name=name,
        body=body,
        file=file,
        content_type=content_type,
        accept=accept,
        target_variant=target_variant,
        stream=stream,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def endpoints(data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the endpoints."""
    from moorage.cli import inspection

    raise typer.Exit(inspection.list_endpoints(read_settings(config, data_dir=data_dir), as_json=as_json))


@app.command()
def describe(name: Name, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Show one endpoint: its status, its variants, and why it failed if it did."""
    from moorage.cli import inspection

    raise typer.Exit(inspection.describe(read_settings(config, data_dir=data_dir), name, as_json=as_json))


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option(help="Lines of the past, for each instance.", min=0)] = 200,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Print what the containers of an endpoint have printed."""
    from moorage.cli import inspection

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(inspection.logs(settings, name, follow=follow, lines=lines, as_json=as_json))


@app.command()
def delete(
    name: Name,
    keep_model: Annotated[bool, typer.Option(help="Leave the model and the configuration.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Delete an endpoint with its configuration and model, and wait until it is gone."""
    from moorage.cli import deployment

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(deployment.delete(settings, name, keep_model=keep_model, as_json=as_json))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if show:
        from moorage import __version__

        print(f"moorage {__version__}")
        raise typer.Exit(OK)


def read_settings(config: Path | None, **overrides: Any) -> Settings:
    """Settings from the file, the environment and the command line.

    Raises:
        SettingsError: one of them is wrong.
    """
    if config is None and Path("moorage.toml").is_file():
        config = Path("moorage.toml")
    return load(file=config, environment=os.environ, overrides=overrides)
