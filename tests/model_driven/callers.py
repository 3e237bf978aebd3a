"""Requests over HTTP as no client of botocore's would send them, and replies as botocore reads them."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
from botocore.awsrequest import HeadersDict
from botocore.model import Shape
from botocore.parsers import create_parser

from tests.model_driven.cases import Case
from tests.model_driven.forms import form


@dataclass(frozen=True)
class Reply:
    status: int
    parsed: dict[str, Any]

    @property
    def code(self) -> str:
        return str(self.parsed.get("Error", {}).get("Code", ""))

    @property
    def message(self) -> str:
        return str(self.parsed.get("Error", {}).get("Message", ""))


def read(case: Case, status: int, headers: Any, body: bytes) -> Reply:
    """Raises botocore's `ResponseParserError` for what it cannot read."""
    operation = case.operation
    parser = create_parser(operation.service_model.metadata["protocol"])
    context = {"operation_name": operation.name}
    response = {"status_code": status, "headers": HeadersDict(headers), "body": body, "context": context}
    return Reply(status, parser.parse(response, operation.output_shape))


class ControlPlane:
    """A controller's address, and its database, to see whether a request has written to it."""

    def __init__(self, url: str, databases: list[sqlite3.Connection]) -> None:
        self._url = url
        self._databases = databases
        self._http = urllib3.PoolManager(retries=False)

    def close(self) -> None:
        self._http.clear()

    def call(self, case: Case, document: Any) -> Reply:
        service = case.operation.service_model
        if service.metadata["protocol"] == "query":
            fields = {"Action": case.operation.name, "Version": service.api_version}
            if case.operation.input_shape is not None:
                fields |= form(case.operation.input_shape, document)
            headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
            body = urlencode(fields).encode()
        else:
            headers = {
                "Content-Type": "application/x-amz-json-1.1",
                "X-Amz-Target": f"{service.metadata['targetPrefix']}.{case.operation.name}",
            }
            body = json.dumps(document).encode()
        scope = f"AKIDEXAMPLE/20260301/eu-central-1/{service.signing_name}/aws4_request"
        headers["Authorization"] = f"AWS4-HMAC-SHA256 Credential={scope}"
        reply = self._http.request("POST", self._url, body=body, headers=headers)
        return read(case, reply.status, reply.headers, reply.data)

    def writes(self) -> list[int]:
        """Another list after every commit of the server's that has changed something."""
        return [base.execute("PRAGMA data_version").fetchone()[0] for base in self._databases]


@contextmanager
def control_plane(url: str, databases: list[Path]) -> Iterator[ControlPlane]:
    opened = [sqlite3.connect(path) for path in databases]
    plane = ControlPlane(url, opened)
    try:
        yield plane
    finally:
        plane.close()
        for base in opened:
            base.close()


def missing(shape: Shape | None, reply: Any, path: str = "") -> list[str]:
    """The members that the model requires of a reply and that it does not have."""
    if shape is None or reply is None:
        return []
    if shape.type_name == "list":
        return [each for item in reply for each in missing(shape.member, item, f"{path}[]")]
    if shape.type_name != "structure":
        return []
    found = [f"{path}.{name}" for name in shape.required_members if name not in reply]
    for name, member in shape.members.items():
        found += missing(member, reply.get(name), f"{path}.{name}")
    return found
