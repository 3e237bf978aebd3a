"""An S3 that is away, refuses, is full or lacks what is named: an invocation fails with a reason that says what to
do, and those behind it go on."""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from moorage.cli.client import PrivateRoutes
from moorage.config import Settings
from tests.async_inference.s3 import LocalS3
from tests.s3.by_tcp import KEY
from tests.servers import MoorageServer, eventually

NewServer = Callable[..., MoorageServer]

PATIENCE_SECONDS = 1
MIB = 1024 * 1024
CONTAINER = Path(__file__).with_name("spooling_container.py")


class Endpoint:
    """An endpoint of the container that answers with what it is sent. It needs no S3 to start."""

    def __init__(self, server: MoorageServer) -> None:
        self.server = server
        self._routes = PrivateRoutes(Settings(data_dir=server.data_dir))

    def invoke(
        self, *, output: str = "s3://bucket/out", failure: str = "s3://bucket/failed", **members: Any
    ) -> str:
        """Its inference id. Each pair of locations has an endpoint of its own."""
        name = self._endpoint({"S3OutputPath": output, "S3FailurePath": failure})
        body = {} if "InputLocation" in members else {"Body": b"hello"}
        runtime = self.server.client("sagemaker-runtime")
        reply = runtime.invoke_endpoint_async(EndpointName=name, **body, **members)
        return str(reply["InferenceId"])

    def _endpoint(self, output: Mapping[str, str]) -> str:
        name = "-".join("".join(filter(str.isalnum, path[5:])) for path in output.values())
        known = self.server.client("sagemaker").list_endpoints(NameContains=name)["Endpoints"]
        if not known:
            config = {"AsyncInferenceConfig": {"OutputConfig": output}}
            self.server.deploy(name, {}, image="spooling", config=config)
        return name

    def record(self, inference_id: str) -> dict[str, Any]:
        """The invocation when it is over."""
        found: dict[str, Any] = {}

        def over() -> bool:
            [document] = self._routes.ask("GET", "async/invocation", id=inference_id)["Invocations"]
            found.update(document)
            return "FinishedTime" in found

        eventually(over, timeout=60, what=lambda: str(found))
        return found

    def failed(self, inference_id: str) -> dict[str, Any]:
        record = self.record(inference_id)
        assert record["Status"] == "Failed", record
        return record

    def completes(self, **members: Any) -> None:
        record = self.record(self.invoke(**members))
        assert record["Status"] == "Completed", record.get("Reason")


@pytest.fixture
def new_endpoint(new_server: NewServer, tmp_path: Path) -> Callable[..., Endpoint]:
    """On a server that uses the S3 at a URL, if one is given."""
    settings = tmp_path / "moorage.toml"
    settings.write_text(f'[images]\nspooling = ["{{python}}", "{CONTAINER}"]\n')

    def make(url: str | None = None, key: Mapping[str, str] = KEY) -> Endpoint:
        arguments = ("--config", str(settings), *(() if url is None else ("--s3-endpoint", url)))
        patience = {"async_storage_patience_seconds": PATIENCE_SECONDS}
        return Endpoint(new_server(arguments=arguments, environment=key, **patience))

    return make


@contextmanager
def running(s3: LocalS3) -> Iterator[LocalS3]:
    try:
        yield s3.start()
    finally:
        s3.stop()


def test_an_s3_that_is_away(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    s3 = LocalS3(tmp_path / "objects", "bucket")
    s3.write("s3://bucket/in", b"from S3")
    endpoint = new_endpoint(s3.url)
    with running(s3):
        endpoint.completes()
    by_body, by_location = endpoint.invoke(), endpoint.invoke(InputLocation="s3://bucket/in")
    for id, action in ((by_body, "write s3://bucket/out/"), (by_location, "read s3://bucket/in")):
        record = endpoint.failed(id)
        assert record["Reason"].startswith(f"cannot {action}")
        assert (
            f": the S3 at {s3.url} does not answer (error sending request). Check that it is running and can be "
            "reached (The failure object is missing: cannot write s3://bucket/failed/"
        ) in record["Reason"]
        assert record["Attempts"] > 1
    with running(s3):
        endpoint.completes()
        endpoint.completes(InputLocation="s3://bucket/in")


@pytest.mark.parametrize("key", [{**KEY, "AWS_SECRET_ACCESS_KEY": "wrong"}, {}], ids=["wrong", "none"])
def test_an_s3_that_denies_access(
    new_endpoint: Callable[..., Endpoint],
    tmp_path: Path,
    key: Mapping[str, str],
) -> None:
    s3 = LocalS3(tmp_path / "objects", "bucket")
    s3.write("s3://bucket/in", b"from S3")
    with running(s3):
        endpoint = new_endpoint(s3.url, key)
        for id in (endpoint.invoke(), endpoint.invoke(InputLocation="s3://bucket/in")):
            record = endpoint.failed(id)
            if key:
                assert f": access denied by the S3 at {s3.url} (" in record["Reason"]
                assert "Check the S3 credentials in the environment of the server" in record["Reason"]
            else:
                assert (
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment" in record["Reason"]
                )
            assert "(The failure object is missing: " in record["Reason"]
            assert record["Attempts"] == 1, "another attempt would change nothing"
        assert endpoint.server.stop() == 0
        again = new_endpoint(s3.url)  # on the same data directory
        again.server.wait_for("bucketout-bucketfailed", "InService")
        again.completes(InputLocation="s3://bucket/in")


def test_a_disk_that_is_full(new_endpoint: Callable[..., Endpoint], tmp_path: Path) -> None:
    """What of a result was written before the disk was full does not stay there."""
    if os.getuid() != 0:
        pytest.skip("only root can mount the small file system that this test fills")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        s3 = LocalS3(folder, "bucket")
        s3.write("s3://bucket/in", os.urandom(11 * MIB))
        s3.write("s3://bucket/small", os.urandom(3 * MIB))
        with running(s3):
            endpoint = new_endpoint(s3.url)
            for location in ("s3://bucket/in", "s3://bucket/small"):  # in parts, and whole
                record = endpoint.failed(endpoint.invoke(InputLocation=location))
                assert record["Reason"].startswith(
                    f"cannot write {record['OutputLocation']}: the S3 at {s3.url}"
                )
                assert "No space left on device" in record["Reason"]
                assert s3.read(record["OutputLocation"]) is None
                told = (s3.read(record["FailureLocation"]) or b"").decode()
                assert told == record["Reason"] or "failure object is missing" in record["Reason"]
            s3.remove("s3://bucket/in")
            endpoint.completes()
            endpoint.completes(InputLocation="s3://bucket/small")
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


MISPLACED = {
    "no bucket for the input": ({"InputLocation": "s3://none/in"}, "there is no bucket none"),
    "no input": ({"InputLocation": "s3://bucket/none"}, "there is no object s3://bucket/none"),
    "no key": (
        {"InputLocation": "s3://bucket"},
        "s3://bucket names no object: there is no key after the bucket",
    ),
    "a folder": ({"InputLocation": "s3://bucket/in/"}, "it ends in a slash"),
    "no S3": ({"InputLocation": "https://example.com"}, "is not the URL of an S3 object"),
    "no name of a bucket": (
        {"InputLocation": "s3://a b/in"},
        "s3://a b/in is not the URL of an S3 object: 'a b' cannot be the name of a bucket",
    ),
    "dots": (
        {"InputLocation": "s3://bucket/../b/in"},
        "keys with an empty, '.' or '..' part between slashes",
    ),
    "no bucket for the output": ({"output": "s3://nowhere/out"}, "there is no bucket nowhere"),
    "dots in the output": (
        {"S3OutputPathExtension": "../.."},
        "cannot write s3://bucket/out/../../",
    ),
}


def test_locations_that_lead_nowhere(new_endpoint: Callable[..., Endpoint]) -> None:
    """Each has its failure object, and holds nothing up."""
    endpoint = new_endpoint(key={})
    s3 = endpoint.server.client("s3")
    s3.create_bucket(Bucket="bucket")
    invoked = {what: endpoint.invoke(**members) for what, (members, _) in MISPLACED.items()}
    for what, id in invoked.items():
        record = endpoint.failed(id)
        assert MISPLACED[what][1] in record["Reason"], what
        key = record["FailureLocation"].removeprefix("s3://bucket/")
        assert s3.get_object(Bucket="bucket", Key=key)["Body"].read().decode() == record["Reason"]
        assert record["Attempts"] == 1
    nowhere = endpoint.failed(endpoint.invoke(failure="s3://lost/failed", InputLocation="s3://bucket/none"))
    assert nowhere["Reason"] == (
        "there is no object s3://bucket/none (The failure object is missing: there is no bucket lost)"
    )
    endpoint.completes()
