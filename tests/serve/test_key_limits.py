"""Limits to what a key may ask, on a whole server: they hold for its clients, and not for its own processes."""

from collections.abc import Callable

import boto3
import pytest
from botocore.exceptions import ClientError

from moorage.config import Settings
from tests.servers import MoorageServer


def test_clients_are_limited_and_the_server_itself_is_not(new_server: Callable[..., MoorageServer]) -> None:
    server = new_server(max_requests_per_second_per_key=0.001)
    settings = Settings(data_dir=server.data_dir)
    internal = settings.internal_url_file.read_text().strip()
    assert settings.url_file.read_text().strip() == server.url != internal
    assert server.client("sagemaker").list_endpoints()["Endpoints"] == []
    for service, operation, code in (
        ("sagemaker", "list_endpoints", "ThrottlingException"),
        ("s3", "list_buckets", "SlowDown"),
        ("iam", "list_users", "Throttling"),
    ):
        with pytest.raises(ClientError) as caught:
            getattr(server.client(service), operation)()
        assert caught.value.response["Error"]["Code"] == code
    own = boto3.client(
        "sagemaker",
        endpoint_url=internal,
        region_name="us-east-1",
        aws_access_key_id=server.key.access_key_id,
        aws_secret_access_key=server.key.secret_access_key,
    )
    for _ in range(3):
        assert own.list_endpoints()["Endpoints"] == []
