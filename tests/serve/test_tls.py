"""TLS on the way to clients: who may speak, what is refused, and another certificate without a restart."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moorage.config import Settings
from moorage.runtime.supervisor import CannotServe, _check_certificate
from tests.serve.test_container_credentials import MODEL, ask
from tests.servers import MoorageServer, eventually

NewServer = Callable[..., MoorageServer]
ECHO = {
    "code/inference.py": "def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return b, 'text/plain'\n"
}


KINDS = {
    "ecdsa": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
    "rsa": ("-newkey", "rsa:2048"),
}


def make_certificate(
    folder: Path,
    name: str,
    *,
    kind: str = "ecdsa",
    days: str = "100",
    protection: tuple[str, ...] = ("-nodes",),
    issuer: tuple[Path, Path] | None = None,
) -> tuple[Path, Path]:
    """A certificate and its key; `issuer` are those of another one, else it is its own."""
    folder.mkdir(exist_ok=True)
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    new_certificate, new_key = folder / "new-certificate.pem", folder / "new-key.pem"
    command = ["openssl", "req", "-x509", *KINDS[kind], *protection, "-days", days, "-subj", f"/CN={name}"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    if issuer is not None:
        command += ["-CA", str(issuer[0]), "-CAkey", str(issuer[1])]
    subprocess.run([*command, "-keyout", new_key, "-out", new_certificate], check=True, capture_output=True)
    new_key.rename(key)
    new_certificate.rename(certificate)
    return certificate, key


def served(url: str) -> str:
    """The common name of the certificate that the server shows."""
    host, port = url.removeprefix("https://").split(":")
    pem = ssl.get_server_certificate((host, int(port)))
    shown = subprocess.run(
        ["openssl", "x509", "-noout", "-subject"], input=pem, capture_output=True, text=True, check=True
    )
    return shown.stdout.strip().rpartition("=")[2].strip()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on this machine to make certificates with")
    return make_certificate(tmp_path / "tls", "first")


def test_clients_speak_tls_and_see_a_new_certificate_without_a_restart(
    new_server: NewServer, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    server = new_server(tls_certificate=certificate[0], tls_key=certificate[1])
    assert server.url.startswith("https://127.0.0.1:")
    server.verify = str(certificate[0])
    server.deploy("echo", ECHO)
    assert invoke(server) == b"hello"
    assert served(server.url) == "first"
    sees_the_server(server, certificate[0])

    make_certificate(tmp_path / "tls", "second")
    eventually(lambda: served(server.url) == "second")
    assert invoke(server) == b"hello"

    certificate[0].write_text("not a certificate")
    eventually(lambda: "cannot be used" in server.log)
    assert served(server.url) == "second"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_and_plain_http_are_refused(
    new_server: NewServer, certificate: tuple[Path, Path]
) -> None:
    server = new_server(tls_certificate=certificate[0], tls_key=certificate[1])
    host, port = server.url.removeprefix("https://").split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        pytest.raises((ssl.SSLError, ConnectionError)),
        socket.create_connection((host, int(port)), 5) as plain,
    ):
        context.wrap_socket(plain)
    with socket.create_connection((host, int(port)), 5) as plain:
        plain.sendall(b"GET /_moorage/health HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            answered = plain.recv(100)
        except ConnectionError:
            answered = b""
    assert not answered.startswith(b"HTTP/")


def test_a_certificate_that_is_none_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text("x")
    settings = Settings(
        data_dir=tmp_path,
        tls_certificate=str(tmp_path / "missing.pem"),
        tls_key=str(tmp_path / "key.pem"),
    )
    with pytest.raises(CannotServe, match=r"missing\.pem.*PEM files"):
        _check_certificate(settings)


def sees_the_server(server: MoorageServer, certificate: Path) -> None:
    """With what `moorage env` prints, and nothing else: SDKs, and our own command line."""
    moorage = [sys.executable, "-m", "moorage"]
    usual = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    printed = subprocess.run(
        [*moorage, "env", "--data-dir", str(server.data_dir)],
        env=usual,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"export AWS_CA_BUNDLE={certificate}\n" in printed
    assert f"export NODE_EXTRA_CA_CERTS={certificate}\n" in printed
    boto3_sees = (
        "import boto3; print(boto3.client('sagemaker').list_endpoints()['Endpoints'][0]['EndpointName'])"
    )
    for command in ([sys.executable, "-c", boto3_sees], [*moorage, "endpoints"], [*moorage, "metrics"]):
        script = f'{printed}\nexec "$@"'
        seen = subprocess.run(
            ["sh", "-c", script, "sh", *command],
            env=usual,
            cwd=server.data_dir.parent,
            capture_output=True,
            text=True,
        )
        assert "echo" in seen.stdout, (command, seen)


def invoke(server: MoorageServer) -> Any:
    runtime = server.client("sagemaker-runtime")
    return runtime.invoke_endpoint(EndpointName="echo", Body=b"hello", ContentType="text/plain")[
        "Body"
    ].read()


def test_a_bucket_that_denies_everything_without_tls_is_open_to_models(
    new_server: NewServer, certificate: tuple[Path, Path]
) -> None:
    """The server reads models, and containers call it, without TLS: that does not leave the machine."""
    server = new_server(tls_certificate=certificate[0], tls_key=certificate[1])
    server.verify = str(certificate[0])
    url = server.upload("reader", MODEL)
    server.client("s3").put_object(Bucket="models", Key="x", Body=b"data")
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": ["arn:aws:s3:::models", "arn:aws:s3:::models/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": statement})
    server.client("s3").put_bucket_policy(Bucket="models", Policy=document)
    assert url == "s3://models/reader/model.tar.gz"
    server.deploy("reader", MODEL)
    assert ask(server, "reader", "get", Bucket="models", Key="x") == "data"
