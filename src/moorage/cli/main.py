"""`moorage`: the commands and their options. What each does is in the module of its name."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from moorage.async_inference.base import Status
from moorage.cli.iam import iam_app
from moorage.cli.options import ConfigFile, DataDir, Json, read_settings
from moorage.config import SettingsError

OK, FAILED, USAGE = 0, 1, 2
"""Exit codes: done; the thing asked for failed; the command line or a setting is wrong."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve and call machine-learning models through the Amazon SageMaker AI Runtime API.",
)

async_app = typer.Typer(
    no_args_is_help=True, help="Look at the queue of asynchronous invocations, and put it right."
)
app.add_typer(async_app, name="async")
app.add_typer(iam_app, name="iam")

Name = Annotated[str, typer.Argument(help="The endpoint's name.")]
Raw = Annotated[
    bool, typer.Option("--raw", help="Let control characters through to a terminal, as to a pipe.")
]
InvocationId = Annotated[str, typer.Argument(metavar="ID", help="An invocation id, or an inference id.")]


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
    role: Annotated[
        str | None, typer.Option(help="ARN of the model's execution role.", show_default="role/moorage")
    ] = None,
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
        role=role,
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
    content_type: Annotated[
        str | None, typer.Option(help="MIME type of the body.", show_default="application/json")
    ] = None,
    accept: Annotated[str | None, typer.Option(help="MIME type wanted of the reply.")] = None,
    target_variant: Annotated[str | None, typer.Option(help="The production variant to call.")] = None,
    inference_id: Annotated[str | None, typer.Option(help="A name for the invocation.")] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Print the reply's parts as they come.")] = False,
    asynchronous: Annotated[
        bool, typer.Option("--async", help="Queue it at an asynchronous endpoint.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="With --async: wait for the end and print the result.")
    ] = False,
    input_location: Annotated[
        str | None, typer.Option(help="With --async: the s3:// URL of the body.")
    ] = None,
    timeout: Annotated[
        int | None,
        typer.Option(
            help="With --async: seconds that the container has.", min=1, max=3600, show_default="900"
        ),
    ] = None,
    raw: Raw = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Call an endpoint and print the reply's body; with --async, where the result is going to be."""
    from moorage.cli import async_invocation, invocation
    from moorage.cli.client import complain

    settings = read_settings(config, data_dir=data_dir)
    if asynchronous:
        if stream or target_variant is not None:
            complain("--async cannot be combined with --stream or --target-variant")
            raise typer.Exit(USAGE)
        code = async_invocation.invoke_async(
            settings,
            name=name,
            body=body,
            file=file,
            input_location=input_location,
            content_type=content_type,
            accept=accept,
            inference_id=inference_id,
            timeout_seconds=timeout,
            wait=wait,
            raw=raw,
            as_json=as_json,
        )
        raise typer.Exit(code)
    if wait or input_location is not None or timeout is not None:
        complain("--wait, --input-location and --timeout are for --async")
        raise typer.Exit(USAGE)
    code = invocation.invoke(
        settings,
        name=name,
        body=body,
        file=file,
        content_type=content_type or "application/json",
        accept=accept,
        target_variant=target_variant,
        inference_id=inference_id,
        stream=stream,
        raw=raw,
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
def metrics(
    endpoint: Annotated[str | None, typer.Argument(help="Only this endpoint.")] = None,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show how many invocations each variant had, what became of them, and how long they took."""
    from moorage.cli import metrics as shown

    raise typer.Exit(shown.show(read_settings(config, data_dir=data_dir), endpoint, as_json=as_json))


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option(help="Lines of the past, for each instance.", min=0)] = 200,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    raw: Raw = False,
    as_json: Json = False,
) -> None:
    """Print what the containers of an endpoint have printed."""
    from moorage.cli import inspection

    settings = read_settings(config, data_dir=data_dir)
    raise typer.Exit(inspection.logs(settings, name, follow=follow, lines=lines, raw=raw, as_json=as_json))


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


@async_app.command("list")
def async_list(
    endpoint: Annotated[str | None, typer.Argument(help="Show this endpoint's newest invocations.")] = None,
    status: Annotated[
        Status | None, typer.Option(help="Only invocations of this status.", case_sensitive=False)
    ] = None,
    limit: Annotated[int, typer.Option(help="How many invocations.", min=1)] = 20,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show the backlog of every endpoint, or one endpoint's and its newest invocations."""
    from moorage.cli import asynchronous

    settings = read_settings(config, data_dir=data_dir)
    code = asynchronous.list_queue(settings, endpoint, status=status, limit=limit, as_json=as_json)
    raise typer.Exit(code)


@async_app.command("show")
def async_show(
    id: InvocationId, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Show all that is known of an invocation."""
    from moorage.cli import asynchronous

    raise typer.Exit(asynchronous.show(read_settings(config, data_dir=data_dir), id, as_json=as_json))


@async_app.command("retry")
def async_retry(
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="An invocation id, or an inference id.")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="The endpoint whose invocations to retry.")] = None,
    all_failed: Annotated[
        bool, typer.Option("--all-failed", help="All of the endpoint's that have failed.")
    ] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Run an invocation again that has failed or expired, or all that have failed."""
    from moorage.cli import asynchronous

    settings = read_settings(config, data_dir=data_dir)
    code = asynchronous.retry(settings, id, endpoint=endpoint, all_failed=all_failed, as_json=as_json)
    raise typer.Exit(code)


@async_app.command("cancel")
def async_cancel(
    id: InvocationId, data_dir: DataDir = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Let an invocation fail that is still queued."""
    from moorage.cli import asynchronous

    raise typer.Exit(asynchronous.cancel(read_settings(config, data_dir=data_dir), id, as_json=as_json))


@async_app.command("purge")
def async_purge(
    endpoint: Annotated[str | None, typer.Option(help="Only this endpoint's invocations.")] = None,
    older_than: Annotated[
        str, typer.Option(help="How long ago they ended, at least: a number and s, m, h or d.")
    ] = "1d",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    data_dir: DataDir = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Forget invocations that have ended; their objects stay in S3."""
    from moorage.cli import asynchronous

    settings = read_settings(config, data_dir=data_dir)
    code = asynchronous.purge(settings, endpoint=endpoint, older_than=older_than, yes=yes, as_json=as_json)
    raise typer.Exit(code)


@app.command("api-coverage")
def api_coverage(as_json: Json = False) -> None:
    """Show what this server does with each operation and member that the installed botocore knows."""
    from moorage.cli import api_coverage

    raise typer.Exit(api_coverage.show(as_json=as_json))


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if show:
        from moorage import __version__

        print(f"moorage {__version__}")
        raise typer.Exit(OK)
