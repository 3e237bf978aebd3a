"""`moorage deploy` and `moorage delete`."""

import json
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import botocore.exceptions
from rich.console import Console

from moorage.cli.client import ERRORS, client, complain, explain
from moorage.cli.inspection import styled
from moorage.cli.terminal import escape
from moorage.config import Settings

_BUCKET = "moorage-models"
_POLL_SECONDS = 0.1
_LEFT_OUT = ("__pycache__", ".git", ".ipynb_checkpoints")


class _Problem(Exception):
    """What was asked for cannot be done; the text says why."""


def deploy(
    settings: Settings,
    *,
    model: Path,
    name: str,
    instances: int,
    image: str,
    role: str | None,
    variables: list[str],
    timeout_seconds: float,
    as_json: bool,
) -> int:
    try:
        environment = _environment(variables)
        if not model.exists():
            raise _Problem(f"there is no {model}")
    except _Problem as problem:
        complain(str(problem))
        return 2
    try:
        sagemaker, s3 = client(settings, "sagemaker"), client(settings, "s3")
        resource = f"{name[:46]}-{time.strftime('%Y%m%d')}-{uuid.uuid4().hex[:7]}"
        with _progress(f"deploying {name}", quiet=as_json) as say:
            say("uploading the model")
            account_id = client(settings, "sts").get_caller_identity()["Account"]
            # Names of buckets are one account's alone.
            bucket = _BUCKET if account_id == settings.account_id else f"{_BUCKET}-{account_id}"
            url = _upload(s3, bucket, model, resource)
            container = {"Image": image, "ModelDataUrl": url, "Environment": environment}
            sagemaker.create_model(
                ModelName=resource,
                ExecutionRoleArn=role or f"arn:aws:iam::{account_id}:role/moorage",
                PrimaryContainer=container,
            )
            variant = {
                "VariantName": "AllTraffic",
                "ModelName": resource,
                "InitialInstanceCount": instances,
                "InstanceType": "ml.m5.large",
            }
            sagemaker.create_endpoint_config(EndpointConfigName=resource, ProductionVariants=[variant])
            started = time.monotonic()
            _create_or_update(sagemaker, name, resource)
            endpoint = _wait(sagemaker, name, resource, timeout_seconds, say)
    except _Problem as problem:
        complain(str(problem))
        return 1
    except ERRORS as error:
        complain(explain(error))
        return 1
    seconds = time.monotonic() - started
    if as_json:
        print(json.dumps({"EndpointName": name, "EndpointArn": endpoint["EndpointArn"], "Seconds": seconds}))
    else:
        Console().print(f"{escape(name)} is {styled('InService')} after {seconds:.1f} s. Call it with:")
        print(f"  moorage invoke {name} --body '...'")
    return 0


def delete(settings: Settings, name: str, *, keep_model: bool, as_json: bool) -> int:
    try:
        sagemaker = client(settings, "sagemaker")
        with _progress(f"deleting {name}", quiet=as_json) as say:
            endpoint = sagemaker.describe_endpoint(EndpointName=name)
            sagemaker.delete_endpoint(EndpointName=name)
            _wait_until_gone(sagemaker, name, say)
            if not keep_model:
                _delete_what_it_was_made_of(sagemaker, endpoint["EndpointConfigName"])
    except ERRORS as error:
        complain(explain(error))
        return 1
    if as_json:
        print(json.dumps({"EndpointName": name, "Deleted": True}))
    else:
        Console().print(f"{escape(name)} is gone.")
    return 0


def _environment(variables: list[str]) -> dict[str, str]:
    environment = {}
    for variable in variables:
        key, equals, value = variable.partition("=")
        if not equals or not key:
            raise _Problem(f"--env takes K=V, not {variable!r}")
        environment[key] = value
    return environment


def _upload(s3: Any, bucket: str, model: Path, resource: str) -> str:
    with suppress(s3.exceptions.BucketAlreadyOwnedByYou, s3.exceptions.BucketAlreadyExists):
        s3.create_bucket(Bucket=bucket)
    key = f"{resource}/model.tar.gz"
    if model.is_file():
        s3.upload_file(str(model), bucket, key)
    else:
        with tempfile.NamedTemporaryFile(suffix=".tar.gz") as file:
            with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
                for path in sorted(model.iterdir()):
                    archive.add(path, path.name, filter=_without_clutter)
            file.flush()
            s3.upload_file(file.name, bucket, key)
    return f"s3://{bucket}/{key}"


def _without_clutter(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if Path(entry.name).name in _LEFT_OUT else entry


def _create_or_update(sagemaker: Any, name: str, config: str) -> None:
    try:
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=config)
    except botocore.exceptions.ClientError as error:
        if "Cannot create already existing" not in str(error):
            raise
        sagemaker.update_endpoint(EndpointName=name, EndpointConfigName=config)


def _wait(
    sagemaker: Any, name: str, config: str, timeout_seconds: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Raises `_Problem` when the endpoint does not come into service with this configuration."""
    end = time.monotonic() + timeout_seconds
    while True:
        endpoint: dict[str, Any] = sagemaker.describe_endpoint(EndpointName=name)
        status = endpoint["EndpointStatus"]
        say(status)
        if status == "InService" and endpoint["EndpointConfigName"] == config:
            return endpoint
        if status in ("Failed", "InService"):
            raise _Problem(
                f"{name} is {status}, but not with this model.\n{endpoint.get('FailureReason', '')}\n"
                f"The whole log: moorage logs {name}"
                if status == "InService"
                else f"{name} is Failed.\n{endpoint.get('FailureReason', '')}\nThe whole log: moorage logs {name}"
            )
        if time.monotonic() > end:
            raise _Problem(f"{name} is still {status} after {timeout_seconds:g} s; it goes on without us.")
        time.sleep(_POLL_SECONDS)


def _wait_until_gone(sagemaker: Any, name: str, say: Callable[[str], None]) -> None:
    while True:
        try:
            say(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])
        except botocore.exceptions.ClientError as error:
            if "Could not find" in str(error):
                return
            raise
        time.sleep(_POLL_SECONDS)


def _delete_what_it_was_made_of(sagemaker: Any, config_name: str) -> None:
    config = sagemaker.describe_endpoint_config(EndpointConfigName=config_name)
    sagemaker.delete_endpoint_config(EndpointConfigName=config_name)
    for variant in config["ProductionVariants"]:
        sagemaker.delete_model(ModelName=variant["ModelName"])


@contextmanager
def _progress(title: str, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A line that tells what is going on, where there is a terminal to show it."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    console = Console(stderr=True)
    started = time.monotonic()
    with console.status(escape(title)) as status:
        yield lambda step: status.update(
            f"{escape(title)}: {escape(step)} ({time.monotonic() - started:.1f} s)"
        )
