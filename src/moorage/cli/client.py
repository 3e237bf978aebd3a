"""boto3 clients for the server that the command line is to talk to, and what goes wrong on the way.

Which server: the one `AWS_ENDPOINT_URL` names, with the usual AWS credentials; else the one that runs on the data
directory, with its root key. An S3 of one's own (setting `s3_endpoint`) is always spoken to directly.
"""

import os
import sys
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from moorage.auth.credentials import read_root_key
from moorage.config import Settings


class NoServer(Exception):
    """No server can be found or reached; the text says what to do."""


def server_url(settings: Settings) -> str:
    """The URL of the server that runs on the data directory.

    Raises:
        NoServer: none does.
    """
    try:
        return settings.url_file.read_text().strip()
    except FileNotFoundError:
        raise NoServer(
            f"No server is running on the data directory {settings.data_dir}. Start one with `moorage serve`, "
            "name its directory with --data-dir, or set AWS_ENDPOINT_URL."
        ) from None


def client(settings: Settings, service: str, **config: Any) -> Any:
    """A boto3 client of one of the server's services.

    Raises:
        NoServer: see `server_url`.
    """
    options = Config(read_timeout=3700, **config)
    if service == "s3" and settings.s3_endpoint:
        return boto3.client(
            "s3", endpoint_url=settings.s3_endpoint, region_name=settings.region, config=options
        )
    if os.environ.get("AWS_ENDPOINT_URL"):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or settings.region
        return boto3.client(service, region_name=region, config=options)
    url = server_url(settings)
    key = read_root_key(settings.credentials_file, account_id=settings.account_id)
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=settings.region,
        aws_access_key_id=key.access_key_id,
        aws_secret_access_key=key.secret_access_key,
        config=options,
    )


def explain(error: Exception) -> str:
    """An error as a sentence for people."""
    if isinstance(error, botocore.exceptions.ClientError):
        details = error.response["Error"]
        return f"{details.get('Code')}: {details.get('Message')}"
    if isinstance(error, botocore.exceptions.EndpointConnectionError):
        return f"{error} Is the server running? `moorage serve` starts it."
    return str(error)


def complain(message: str) -> None:
    print(f"moorage: {message}", file=sys.stderr)


ERRORS = (NoServer, botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError)
