"""What the conformance tests run against: our own server, or whatever `MOORAGE_CONFORMANCE_URL` names."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.credentials import Credentials, ReadOnlyCredentials

from tests.servers import MoorageServer

URL_VARIABLE = "MOORAGE_CONFORMANCE_URL"
REGION = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
_MODELS = Path(__file__).parent / "models"


class Elsewhere(MoorageServer):
    """A server that somebody else runs, reached with the credentials that the AWS SDKs find by themselves."""

    def __init__(self, url: str) -> None:
        super().__init__(Path())
        self.url = url

    def client(self, service: str, **config: Any) -> Any:
        options: dict[str, Any] = {"retries": {"total_max_attempts": 1}, "read_timeout": 120, **config}
        return boto3.client(service, endpoint_url=self.url, region_name=REGION, config=Config(**options))


def credentials(target: MoorageServer) -> ReadOnlyCredentials:
    """What signs the requests of `target.client(…)`."""
    if isinstance(target, Elsewhere):
        found: Credentials = boto3.Session().get_credentials()
        return found.get_frozen_credentials()
    return ReadOnlyCredentials(target.key.access_key_id, target.key.secret_access_key, None)


def unique(name: str) -> str:
    """A name that no other test, and no earlier run, has used."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


def model(name: str) -> dict[str, str]:
    """The files of one of the models beside this file."""
    return {"code/inference.py": (_MODELS / name / "inference.py").read_text()}


@contextmanager
def closed(gate: Path) -> Iterator[None]:
    """While the block runs, the model `gated` cannot get past this file."""
    with gate.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
