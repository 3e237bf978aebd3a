"""The audit log of a whole server: who is in it, and what never is."""

import datetime
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from moorage.auth import sessions
from moorage.auth.sealing import create_sealer
from tests.serve.test_iam import ECHO, User, allow, policy, with_key
from tests.servers import ACCOUNT, MoorageServer

NewServer = Callable[..., MoorageServer]
ARN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}"
ROOT = f"arn:aws:iam::{ACCOUNT}:root"


def lines(server: MoorageServer) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (server.data_dir / "audit.log").read_text().splitlines()]


def lines_about(server: MoorageServer, request_id: str) -> list[dict[str, Any]]:
    return [line for line in lines(server) if line.get("requestId") == request_id]


def line_about(server: MoorageServer, reply: dict[str, Any]) -> dict[str, Any]:
    """The line of the call that had this reply, which is there before the reply is."""
    (line,) = lines_about(server, reply["ResponseMetadata"]["RequestId"])
    return line


def refused(call: Callable[[], object]) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call()
    reply: dict[str, Any] = caught.value.response
    if "RequestId" not in reply["ResponseMetadata"]:  # S3 replies to HEAD have no body
        headers = reply["ResponseMetadata"]["HTTPHeaders"]
        reply["ResponseMetadata"]["RequestId"] = headers["x-amzn-requestid"]
    return reply


@pytest.fixture(scope="module")
def echo(server: MoorageServer) -> MoorageServer:
    server.deploy("audited", ECHO)
    return server


def test_calls_of_the_control_plane_have_a_line_each(server: MoorageServer) -> None:
    sagemaker = server.client("sagemaker", user_agent_extra="audit-test")
    container = {"Image": "i", "Environment": {"PASSWORD": "an-environment-secret"}}
    created = line_about(server, sagemaker.create_model(ModelName="Audit-One", PrimaryContainer=container))
    assert created.pop("eventTime").endswith("Z")
    assert created.pop("requestId")
    assert "audit-test" in created.pop("userAgent")
    assert created == {
        "eventSource": "sagemaker.amazonaws.com",
        "eventName": "CreateModel",
        "awsRegion": "us-east-1",
        "sourceIPAddress": "127.0.0.1",
        "accountId": ACCOUNT,
        "principalArn": ROOT,
        "accessKeyId": server.key.access_key_id,
        "resource": [f"{ARN}:model/audit-one", ROOT],
        "outcome": "allowed",
    }
    for call, name in (
        (lambda: sagemaker.describe_model(ModelName="Audit-One"), "DescribeModel"),
        (lambda: sagemaker.delete_model(ModelName="Audit-One"), "DeleteModel"),
    ):
        line = line_about(server, call())
        assert (line["eventName"], line["resource"]) == (name, f"{ARN}:model/audit-one")
    listed = line_about(server, sagemaker.list_models())
    assert (listed["eventName"], "resource" in listed) == ("ListModels", False)
    absent = line_about(server, refused(lambda: sagemaker.describe_model(ModelName="Audit-One")))
    assert (absent["outcome"], absent["errorCode"]) == ("failed", "ValidationException")
    unknown = line_about(server, refused(lambda: sagemaker.list_training_jobs()))
    assert (unknown["eventName"], unknown["errorCode"]) == ("ListTrainingJobs", "UnknownOperationException")


def test_iam_and_sts_too(server: MoorageServer) -> None:
    iam = server.client("iam")
    created = line_about(server, iam.create_user(UserName="audited-user"))
    assert (created["eventSource"], created["eventName"]) == ("iam.amazonaws.com", "CreateUser")
    assert created["resource"] == f"arn:aws:iam::{ACCOUNT}:user/audited-user"
    again = line_about(server, refused(lambda: iam.create_user(UserName="audited-user")))
    assert (again["outcome"], again["errorCode"]) == ("failed", "EntityAlreadyExists")
    assert "audited-user" in again["errorMessage"]
    who = line_about(server, server.client("sts").get_caller_identity())
    assert (who["eventSource"], who["eventName"]) == ("sts.amazonaws.com", "GetCallerIdentity")


def test_our_own_routes_too(echo: MoorageServer) -> None:
    for path, outcome in (
        ("/_moorage/endpoints/audited/logs", "allowed"),
        ("/_moorage/endpoints/never/logs", "failed"),
    ):
        reply = send(echo, "GET", path, server_key(echo))
        (line,) = lines_about(echo, reply.headers["x-amzn-requestid"])
        assert (line["eventSource"], line["eventName"]) == ("moorage", f"GET {path}")
        assert (line["outcome"], line.get("errorCode")) == (outcome, "404" if outcome == "failed" else None)


def test_what_a_permission_is_missing_for_is_there_once(echo: MoorageServer) -> None:
    user = User(echo, "nosy", policy(allow("sts:GetCallerIdentity")))
    runtime, s3, sagemaker, iam = (
        user.client(name) for name in ("sagemaker-runtime", "s3", "sagemaker", "iam")
    )
    endpoint = f"{ARN}:endpoint/audited"
    invocation = {"EndpointName": "audited", "Body": b"x"}
    refusals: Sequence[tuple[Callable[[], object], str, str, str]] = (
        (lambda: runtime.invoke_endpoint(**invocation), "sagemaker", "InvokeEndpoint", endpoint),
        (
            lambda: runtime.invoke_endpoint_async(EndpointName="audited", Body=b"x"),
            "sagemaker",
            "InvokeEndpointAsync",
            endpoint,
        ),
        (lambda: s3.get_object(Bucket="models", Key="a"), "s3", "GetObject", "arn:aws:s3:::models/a"),
        (lambda: sagemaker.delete_endpoint(EndpointName="audited"), "sagemaker", "DeleteEndpoint", endpoint),
        (
            lambda: iam.delete_user(UserName="nosy"),
            "iam",
            "DeleteUser",
            f"arn:aws:iam::{ACCOUNT}:user/nosy",
        ),
    )
    for call, service, name, resource in refusals:
        line = line_about(echo, refused(call))
        assert (line["eventSource"], line["eventName"]) == (f"{service}.amazonaws.com", name)
        assert (line["outcome"], line["errorCode"]) == ("refused", "AccessDeniedException")
        assert (line["principalArn"], line["accountId"]) == (user.arn, ACCOUNT)
        assert (line["accessKeyId"], line["resource"]) == (user.key["AccessKeyId"], resource)
        assert "is not authorized to perform" in line["errorMessage"]
    reply = send(
        echo, "POST", "/_moorage/async/purge", (user.key["AccessKeyId"], user.key["SecretAccessKey"])
    )
    (line,) = lines_about(echo, reply.headers["x-amzn-requestid"])
    assert (line["eventSource"], line["eventName"]) == ("moorage", "POST /_moorage/async/purge")
    assert (line["outcome"], line["principalArn"]) == ("refused", user.arn)


def test_what_succeeds_on_the_way_of_data_is_not_there(echo: MoorageServer) -> None:
    attributes = {"CustomAttributes": "audit-custom-attributes"}
    reply = echo.client("sagemaker-runtime").invoke_endpoint(
        EndpointName="audited", Body=b"audit-body", ContentType="text/plain", **attributes
    )
    assert reply["Body"].read() == b"audit-body"
    read = echo.client("s3").list_buckets()
    assert not lines_about(echo, reply["ResponseMetadata"]["RequestId"])
    assert not lines_about(echo, read["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"])


def test_strangers_are_there_with_what_they_claim(echo: MoorageServer) -> None:
    key_id, secret = server_key(echo)
    for service, call, name in (
        ("sagemaker", lambda client: client.list_models(), "ListModels"),
        (
            "sagemaker-runtime",
            lambda client: client.invoke_endpoint(EndpointName="a", Body=b"x"),
            "InvokeEndpoint",
        ),
        ("s3", lambda client: client.list_buckets(), "ListBuckets"),
        ("sts", lambda client: client.get_caller_identity(), "POST /"),
    ):
        wrong = with_key(echo, service, key_id, "wrong" + secret[5:])
        line = line_about(echo, refused(lambda call=call, client=wrong: call(client)))
        assert (line["eventName"], line["outcome"]) == (name, "refused")
        assert (line["errorCode"], line["accessKeyId"]) == ("InvalidSignatureException", key_id)
        assert line["errorMessage"].endswith("Consult the service documentation for details.")
        assert "principalArn" not in line, "it is not known who it was"
        unknown = with_key(echo, service, "AKIAUNKNOWNUNKNOWN00", secret)
        line = line_about(echo, refused(lambda call=call, client=unknown: call(client)))
        assert (line["errorCode"], line["accessKeyId"]) == (
            "UnrecognizedClientException",
            "AKIAUNKNOWNUNKNOWN00",
        )
    with urllib3.PoolManager(retries=False) as http:
        reply = http.request("POST", f"{echo.url}/endpoints/audited/invocations")
    (line,) = lines_about(echo, reply.headers["x-amzn-requestid"])
    assert line["errorCode"] == "MissingAuthenticationTokenException"
    assert line["resource"] == "/endpoints/audited/invocations"


def test_expired_tokens_and_presigned_urls(server: MoorageServer) -> None:
    sealer = create_sealer(secret_key="", path=server.data_dir / "secret-key")
    ended = sessions.issue(
        sealer,
        account_id=ACCOUNT,
        principal_arn=ROOT,
        user_id=ACCOUNT,
        identity_arn=ROOT,
        duration_seconds=900,
        now=datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=1),
    )
    keys = (ended.access_key_id, ended.secret_access_key, ended.session_token)
    line = line_about(server, refused(lambda: with_key(server, "sagemaker", *keys).list_models()))
    assert (line["errorCode"], line["accessKeyId"]) == ("ExpiredTokenException", ended.access_key_id)

    key = server.key
    session = server.client("sts").get_session_token()["Credentials"]
    presigned = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
        config=Config(signature_version="s3v4"),
    ).generate_presigned_url("get_object", Params={"Bucket": "models", "Key": "a"})
    with urllib3.PoolManager(retries=False) as http:
        reply = http.request("GET", presigned.replace("models/a", "models/b"))
    (line,) = lines_about(server, reply.headers["x-amzn-requestid"])
    assert (line["errorCode"], line["eventName"]) == ("InvalidSignatureException", "GetObject")
    assert (line["resource"], line["accessKeyId"]) == ("/models/b", session["AccessKeyId"])
    nothing_of(
        server,
        ended.session_token,
        ended.secret_access_key,
        session["SessionToken"],
        session["SecretAccessKey"],
        presigned.rpartition("=")[2],
        "X-Amz-",
        key.secret_access_key,
    )


def test_nothing_secret_is_there(server: MoorageServer) -> None:
    """What is wrong in these requests is quoted in their replies, and some of it must not be kept."""
    key_id, secret = server_key(server)
    refused(lambda: with_key(server, "sagemaker", secret, key_id).list_models())  # the halves mixed up
    environment = {"bad name": "an-environment-secret"}
    sagemaker = server.client("sagemaker", parameter_validation=False)
    container = {"Image": "i", "Environment": environment}
    refused(lambda: sagemaker.create_model(ModelName="a b", PrimaryContainer=container))
    refused(lambda: sagemaker.create_model(ModelName="a", PrimaryContainer={"Image": ["listed-secret"]}))
    document = '{"a-document-secret": 1}'
    iam = server.client("iam")
    refused(lambda: iam.create_role(RoleName="audit-bad", AssumeRolePolicyDocument=document))
    runtime = with_key(server, "sagemaker-runtime", key_id, "wrong" + secret[5:])
    body = b"a-body-secret"
    refused(
        lambda: runtime.invoke_endpoint(EndpointName="a", Body=body, CustomAttributes="an-attribute-secret")
    )
    replies = [
        raw(server, target, header)
        for target, header in (
            ("/endpoints/a/invocations", "Authorization: Bearer a-bearer-secret"),
            ("/endpoints/a/invocations", "Authorization: Basic a-basic-secret=, x"),
            ("/endpoints/a/invocations", f"Authorization: AWS4-HMAC-SHA256 Credential={secret}/x"),
            ("/a?X-Amz-Signature=a-query-secret&X-Amz-Credential=b", "X-Header: a-header-secret"),
            ("ftp://user:a-password-secret@host/?X-Amz-Signature=a-query-secret", "X-Header: a"),
        )
    ]
    assert [reply.split(b" ")[1] for reply in replies] == [b"403", b"403", b"403", b"403", b"400"]
    codes = [line.get("errorCode") for line in lines(server)]
    for code in ("MalformedPolicyDocument", "SerializationException", "IncompleteSignatureException"):
        assert code in codes
    nothing_of(server, secret, "-secret", "Signature=", "Canonical String")


def test_the_file_is_for_nobody_else_and_rotates(new_server: NewServer) -> None:
    server = new_server(workers=2)
    path = server.data_dir / "audit.log"
    assert path.stat().st_mode & 0o777 == 0o600
    sts = server.client("sts")
    first = sts.get_caller_identity()["ResponseMetadata"]["RequestId"]
    moved = path.rename(path.with_name("audit.log.1"))
    for name in ("gateway_process", "controller_process"):
        os.kill(server.process_of(name), signal.SIGHUP)
    os.kill(server.pid, signal.SIGHUP)
    second = sts.get_caller_identity()["ResponseMetadata"]["RequestId"]
    refusal = refused(lambda: with_key(server, "sts", "AKIAUNKNOWNUNKNOWN00", "s").get_caller_identity())
    third = refusal["ResponseMetadata"]["RequestId"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [line["requestId"] for line in lines(server)] == [second, third]
    assert first in moved.read_text()
    assert server.stop() == 0
    assert "is started again" not in server.log


def test_a_flood_is_counted(new_server: NewServer) -> None:
    server = new_server()
    user = User(server, "patient", policy(allow("sts:GetCallerIdentity")))
    many = 1000
    with socket.create_connection((urlsplit(server.url).hostname, urlsplit(server.url).port)) as client:
        client.sendall(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n" * many)
        replies = b""
        while replies.count(b"HTTP/1.1 403") < many:
            part = client.recv(1 << 20)
            assert part
            replies += part
    denied = refused(lambda: user.client("s3").list_buckets())
    assert server.stop() == 0
    found = lines(server)
    told = [line for line in found if line.get("resource") == "/flood"]
    counted = [line["count"] for line in found if line["eventName"] == "LinesLeftOut"]
    assert len(told) + sum(counted) == many
    assert counted
    assert denied["ResponseMetadata"]["HTTPHeaders"]["x-amzn-requestid"] in {
        line.get("requestId") for line in found
    }


def test_it_can_be_elsewhere_or_off(new_server: NewServer, tmp_path: Path) -> None:
    server = new_server("elsewhere", audit_log=tmp_path / "calls.log")
    server.client("sts").get_caller_identity()
    assert "GetCallerIdentity" in (tmp_path / "calls.log").read_text()
    without = new_server("without", audit_log="off")
    without.client("sts").get_caller_identity()
    assert not [*server.data_dir.glob("audit*"), *without.data_dir.glob("audit*")]


def test_a_server_that_cannot_write_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"Cannot write the audit log .*/none/audit\.log: No such file"):
        MoorageServer(tmp_path / "data", audit_log=tmp_path / "none" / "audit.log").start()


# --- Requests as no SDK sends them ---------------------------------------------------------------------


def server_key(server: MoorageServer) -> tuple[str, str]:
    return server.key.access_key_id, server.key.secret_access_key


def send(server: MoorageServer, method: str, path: str, key: tuple[str, str]) -> urllib3.BaseHTTPResponse:
    request = AWSRequest(method, server.url + path, data=b"")
    SigV4Auth(Credentials(*key), "sagemaker", "us-east-1").add_auth(request)
    with urllib3.PoolManager(retries=False) as http:
        return http.request(method, server.url + path, headers=dict(request.headers.items()))


def raw(server: MoorageServer, target: str, header: str) -> bytes:
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port)) as client:
        client.sendall(f"GET {target} HTTP/1.1\r\nHost: a\r\n{header}\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: client.recv(65536), b""))


def nothing_of(server: MoorageServer, *secrets: str) -> None:
    text = (server.data_dir / "audit.log").read_text()
    assert [secret for secret in secrets if secret in text or json.dumps(secret)[1:-1] in text] == []
