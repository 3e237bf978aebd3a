"""Containers call AWS's APIs as the execution role of their model, with credentials that boto3 finds by itself."""

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from moorage import network_namespace
from tests.serve.test_execution_roles import TRUST, create_role
from tests.serve.test_iam import allow, policy
from tests.servers import ACCOUNT, MoorageServer, eventually

NO_NETWORK = network_namespace.why_unusable()
needs_network = pytest.mark.skipif(NO_NETWORK is not None, reason=str(NO_NETWORK))
PATH = "/_moorage/container-credentials/"

MODEL = {
    "code/inference.py": """
import json, os, urllib.error, urllib.request
import boto3
from botocore.exceptions import BotoCoreError, ClientError

def model_fn(model_dir):
    return boto3.client("sts").get_caller_identity()["Arn"] if os.environ.get("ASK_EARLY") else None

def transform_fn(model, body, content_type, accept):
    asked = json.loads(body)
    return json.dumps(globals()["do_" + asked.pop("do")](model, **asked)), "application/json"

def do_get(model, **members):
    try:
        return boto3.client("s3").get_object(**members)["Body"].read().decode()
    except (BotoCoreError, ClientError) as error:
        return f"{type(error).__name__}: {error}"

def do_put(model, **members):
    boto3.client("s3").put_object(**members)

def do_early(model):
    return model

def do_environment(model):
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}

def do_fetch(model, url):
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return [reply.status, reply.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except OSError as error:
        return [0, str(error)]
"""
}


def ask(server: MoorageServer, name: str, do: str, **members: Any) -> Any:
    body = json.dumps({"do": do, **members})
    reply = server.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=body)
    return json.loads(reply["Body"].read())


def fetch(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def secret_url(server: MoorageServer, name: str) -> str:
    """Where an instance's credentials are, as the server's own machine reaches it."""
    environment = ask(server, name, "environment")
    path = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    path = path or urlsplit(environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"]).path
    assert path.startswith(PATH)
    return f"{server.url}{path}"


@pytest.fixture(
    scope="module",
    params=[pytest.param("outbound", marks=needs_network), "host"],
)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server whose containers have this network, with a role that may read `in/*` of the bucket `shelf`."""
    folder = tmp_path_factory.mktemp("credentials")
    server = MoorageServer(folder / "data", container_network=request.param).start()
    try:
        s3 = server.client("s3")
        s3.create_bucket(Bucket="shelf")
        for key in ("in/x", "secret/x"):
            s3.put_object(Bucket="shelf", Key=key, Body=key.encode())
        url = server.upload("reader", MODEL)
        role = create_role(
            server,
            "reader",
            allow("s3:GetObject", resource="arn:aws:s3:::shelf/in/*"),
            allow("s3:GetObject", resource=f"arn:aws:s3:::{url.removeprefix('s3://')}"),
        )
        server.deploy("reader", MODEL, model={"ExecutionRoleArn": role}, environment={"ASK_EARLY": "1"})
        server.deploy("for-account", MODEL)
        yield request.param, server
    finally:
        server.ensure_stopped()


def test_a_container_reads_what_its_role_may_read(network: tuple[str, MoorageServer]) -> None:
    kind, server = network
    assert ask(server, "reader", "early") == f"arn:aws:sts::{ACCOUNT}:assumed-role/reader/SageMaker"
    assert ask(server, "reader", "get", Bucket="shelf", Key="in/x") == "in/x"
    refused = ask(server, "reader", "get", Bucket="shelf", Key="secret/x")
    assert refused.startswith("AccessDenied: An error occurred (AccessDenied)")
    environment = ask(server, "reader", "environment")
    given = "RELATIVE" if kind == "outbound" else "FULL"
    assert f"AWS_CONTAINER_CREDENTIALS_{given}_URI" in environment
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & environment.keys()
    assert environment["AWS_DEFAULT_REGION"] == environment["AWS_REGION"] == "us-east-1"


def test_a_role_that_does_not_exist_gives_the_accounts_permissions(
    network: tuple[str, MoorageServer],
) -> None:
    _, server = network
    assert ask(server, "for-account", "get", Bucket="shelf", Key="secret/x") == "secret/x"
    ask(server, "for-account", "put", Bucket="shelf", Key="made", Body="by the model")
    assert server.client("s3").get_object(Bucket="shelf", Key="made")["Body"].read() == b"by the model"


def test_credentials_are_told_as_the_sdks_expect(network: tuple[str, MoorageServer]) -> None:
    _, server = network
    status, text = fetch(secret_url(server, "reader"))
    assert status == 200
    told = json.loads(text)
    assert set(told) == {"RoleArn", "AccessKeyId", "SecretAccessKey", "Token", "Expiration"}
    assert told["RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/reader"


def test_only_an_instances_own_secret_gives_credentials(network: tuple[str, MoorageServer]) -> None:
    kind, server = network
    ours, theirs = (urlsplit(secret_url(server, name)).path for name in ("reader", "for-account"))
    mixed = f"{PATH}{theirs.removeprefix(PATH).partition('/')[0]}/{ours.rpartition('/')[2]}"
    place = "http://169.254.170.2" if kind == "outbound" else server.url
    words = '{"message":"There are no such credentials."}'
    guesses = [
        mixed,
        ours[:-1],
        ours + "x",
        f"{PATH}i-00000000000000000/{'x' * 43}",
        ours.rpartition("/")[0] + "/",
    ]
    for guess in guesses:
        assert ask(server, "reader", "fetch", url=place + guess) == [404, words], guess
    assert ask(server, "reader", "fetch", url=place + ours)[0] == 200


def test_the_secret_ends_with_the_instance(network: tuple[str, MoorageServer]) -> None:
    _, server = network
    server.deploy("passing", MODEL)
    url = secret_url(server, "passing")
    assert fetch(url)[0] == 200
    server.client("sagemaker").delete_endpoint(EndpointName="passing")
    eventually(lambda: fetch(url)[0] == 404)
    assert fetch(url) == (404, '{"message":"There are no such credentials."}')


def test_what_a_model_sets_itself_counts(network: tuple[str, MoorageServer]) -> None:
    _, server = network
    own = {
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "AKIDOWN",
    }
    server.deploy("own", MODEL, environment=own)
    environment = ask(server, "own", "environment")
    assert {name: environment[name] for name in own} == own
    assert environment["AWS_DEFAULT_REGION"] == "eu-west-1"


def test_a_role_that_may_no_longer_be_assumed_gives_none(network: tuple[str, MoorageServer]) -> None:
    _, server = network
    url = secret_url(server, "reader")
    iam = server.client("iam")
    other = {**TRUST, "Principal": {"Service": "lambda.amazonaws.com"}}
    iam.update_assume_role_policy(RoleName="reader", PolicyDocument=policy(other))
    status, text = fetch(url)
    assert (status, json.loads(text)["code"]) == (403, "AccessDenied")
    iam.update_assume_role_policy(RoleName="reader", PolicyDocument=policy(TRUST))
    assert fetch(url)[0] == 200


@needs_network
def test_a_model_in_network_isolation_has_no_credentials(server: MoorageServer) -> None:
    server.deploy("no-credentials", MODEL, model={"EnableNetworkIsolation": True})
    said = ask(server, "no-credentials", "get", Bucket="shelf", Key="in/x")
    assert said == "NoCredentialsError: Unable to locate credentials"
    names = ask(server, "no-credentials", "environment").keys()
    assert not any("CREDENTIALS" in name or "ENDPOINT" in name for name in names)


def test_a_server_that_is_not_on_the_loopback_gives_them_there(
    new_server: Callable[..., MoorageServer],
) -> None:
    """SDKs ask for credentials without TLS at loopback addresses only."""
    server = new_server(container_network="host", host="127.0.0.2")
    server.deploy("elsewhere", MODEL)
    environment = ask(server, "elsewhere", "environment")
    asked = urlsplit(environment["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
    assert asked.hostname == "127.0.0.1"
    assert urlsplit(environment["AWS_ENDPOINT_URL"]).hostname == "127.0.0.2"
    server.client("s3").create_bucket(Bucket="shelf")
    assert "NoSuchKey" in ask(server, "elsewhere", "get", Bucket="shelf", Key="x")


def test_nobody_of_another_machine_is_given_any(new_server: Callable[..., MoorageServer]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            pytest.skip(f"this machine has no address but the loopback's ({error})")
        address = probe.getsockname()[0]
    server = new_server(host="0.0.0.0")  # noqa: S104
    server.deploy("local", MODEL)
    url = secret_url(server, "local")
    assert fetch(url)[0] == 200
    assert fetch(url.replace("127.0.0.1", address)) == (404, '{"message":"There are no such credentials."}')
