"""One URL for everything: which service a request is for, and what a request for nothing of ours is told."""

import json
import urllib.error
import urllib.request

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.servers import ACCOUNT, MODELHOST, ROLE, MoorageServer


def test_a_signature_may_be_scoped_to_any_region(server: MoorageServer) -> None:
    sagemaker = boto3.client(
        "sagemaker",
        endpoint_url=server.url,
        region_name="eu-central-1",
        aws_access_key_id=server.key.access_key_id,
        aws_secret_access_key=server.key.secret_access_key,
    )
    made = sagemaker.create_model(
        ModelName="anywhere", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": MODELHOST}
    )
    assert made["ModelArn"] == f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model/anywhere"
    assert server.client("sagemaker").describe_model(ModelName="anywhere")["ModelArn"] == made["ModelArn"]


@pytest.mark.parametrize(
    "path",
    [
        "/endpoints/any/invocations-bidirectional-stream",
        "/endpoints/any/openai/v1/chat/completions",
        "/endpoints/any",
        "/endpoints/any/",
        "/endpoints/",
    ],
)
def test_what_is_not_here_yet_says_so(server: MoorageServer, path: str) -> None:
    request = AWSRequest("POST", server.url + path, data=b"{}")
    key = server.key
    SigV4Auth(Credentials(key.access_key_id, key.secret_access_key), "sagemaker", "us-east-1").add_auth(
        request
    )
    signed = urllib.request.Request(request.url, b"{}", dict(request.headers.items()), method="POST")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(signed)
    with caught.value as reply:
        assert reply.headers["x-amzn-ErrorType"] in ("UnknownOperationException", "ValidationError")
        assert json.load(reply)
