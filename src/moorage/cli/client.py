"""Clients for the server that the command line is to talk to, and what goes wrong on the way.

Which server: the one `AWS_ENDPOINT_URL` names, with the usual AWS credentials; else the one that runs on the data
directory, with its root key. An S3 of one's own (setting `s3_endpoint`) is always spoken to directly.
"""

import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import boto3
import boto3.exceptions
import botocore.exceptions
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config

from moorage.auth.credentials import read_root_key
from moorage.cli.terminal import say
from moorage.config import Settings


class NoServer(Exception):
    """No server can be found or reached; the text says what to do."""


class Refused(Exception):
    """The server answers a private request with an error; the text says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def server_url(settings: Settings, *, public: bool = False) -> str:
    """The URL of the server that runs on the data directory: for our own tools, or the `public` one for others.

    Raises:
        NoServer: none does.
    """
    try:
        return (settings.url_file if public else settings.internal_url_file).read_text().strip()
    except FileNotFoundError:
        raise NoServer(
            f"No server is running on the data directory {settings.data_dir}. Start one with `moorage serve`, "
            "name its directory with --data-dir, or set AWS_ENDPOINT_URL."
        ) from None


def region(settings: Settings) -> str:
    """The region to sign for."""
    if not os.environ.get("AWS_ENDPOINT_URL"):
        return settings.region
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or settings.region


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
        return boto3.client(service, region_name=region(settings), config=options)
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


class PrivateRoutes:
    """The routes below `/_moorage/` that the server has for the command line.

    Raises:
        NoServer: see `server_url`.
    """

    def __init__(self, settings: Settings) -> None:
        runtime = client(
            settings, "sagemaker-runtime"
        )  # of the services with the right name the quickest to load
        self._url = f"{runtime.meta.endpoint_url}/_moorage"
        self._credentials = runtime._request_signer._credentials
        self._region = runtime.meta.region_name
        self._tls: ssl.SSLContext | None = None
        if self._url.startswith(
            "https:"
        ):  # with the variable that boto3, the aws CLI and the SDKs have for this
            self._tls = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or None)

    @contextmanager
    def open(self, method: str, path: str, **query: object) -> Iterator[http.client.HTTPResponse]:
        """The reply, open for as long as the block lasts. Parameters that are None are left out.

        Raises:
            NoServer: the server cannot be reached, or the connection broke.
            Refused: it answers with an error.
        """
        parameters = {name: str(value) for name, value in query.items() if value is not None}
        url = f"{self._url}/{quote(path)}?{urlencode(parameters, quote_via=quote, safe='')}"
        signed = AWSRequest(method, url)
        SigV4Auth(self._credentials.get_frozen_credentials(), "sagemaker", self._region).add_auth(signed)
        request = urllib.request.Request(url, headers=dict(signed.headers.items()), method=method)
        try:
            with urllib.request.urlopen(request, context=self._tls) as reply:
                yield reply
        except urllib.error.HTTPError as error:
            raise Refused(error.code, _message(error)) from error
        except urllib.error.URLError as error:
            raise NoServer(f"the server cannot be reached: {error.reason}") from error
        except (ConnectionError, http.client.HTTPException) as error:
            raise NoServer(f"the connection to the server broke: {error!r}") from error

    def ask(self, method: str, path: str, **query: object) -> dict[str, Any]:
        """The JSON of a reply. Raises as `open` does."""
        with self.open(method, path, **query) as reply:
            document: dict[str, Any] = json.load(reply)
        return document


def _message(error: urllib.error.HTTPError) -> str:
    """What our routes call `message`, and the errors of the gateway either that or `Message`."""
    try:
        document = json.loads(error.read())
        return str(document.get("message") or document["Message"])
    except (ValueError, AttributeError, KeyError):
        return str(error)


def explain(error: Exception) -> str:
    """An error as a sentence for people."""
    if isinstance(error, botocore.exceptions.ClientError):
        details = error.response["Error"]
        return f"{details.get('Code')}: {details.get('Message')}"
    if isinstance(error, botocore.exceptions.EndpointConnectionError):
        return f"{error} Is the server running? `moorage serve` starts it."
    return str(error)


def complain(message: str) -> None:
    say(f"moorage: {message}", file=sys.stderr)


ERRORS = (
    NoServer,
    Refused,
    botocore.exceptions.ClientError,
    botocore.exceptions.BotoCoreError,
    boto3.exceptions.Boto3Error,
)
