"""A client of the runtime, as botocore makes it, and the calls that the behaviours are made of."""

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from botocore.exceptions import ClientError

import orders
from report import equal, failure, required

Members = dict[str, Any]
Reply = dict[str, Any]


class MakeClient(Protocol):
    """`boto3.client`, with `config` as a dictionary. Its clients' methods block."""

    def __call__(self, service: str, /, *, config: Members, **arguments: Any) -> Any: ...


class Caller:
    """The calls; `client` is the one that a call uses if it is given none."""

    def __init__(self, make: MakeClient) -> None:
        self._make = make
        self.client = self.runtime()
        self.s3 = make("s3", config={"s3": {"addressing_style": "path"}})

    def runtime(self, attempts: int = 0, /, *, read_timeout: float = 60, **arguments: Any) -> Any:
        """One more client of the runtime; `attempts` are in total, 0: as many as botocore makes by itself."""
        config: Members = {"read_timeout": read_timeout}
        if attempts:
            config["retries"] = {"total_max_attempts": attempts}
        return self._make("sagemaker-runtime", config=config, **arguments)

    def failing(self, attempts: int = 0, /) -> Any:
        """A client of the gateway that fails on demand."""
        return self.runtime(attempts, endpoint_url=required("CONFORMANCE_FAILING_URL"))

    def stranger(self, *, secret_only: bool) -> Any:
        known = required("AWS_ACCESS_KEY_ID")
        return self.runtime(
            aws_access_key_id=known if secret_only else "AKIAAAAAAAAAAAAAAAAA",
            aws_secret_access_key="not-the-secret",
        )

    def invoke(self, client: Any = None, /, **members: Any) -> Reply:
        """The reply, with its Body read."""
        members = {"EndpointName": orders.endpoint(), "Body": "", **members}
        reply: Reply = (client or self.client).invoke_endpoint(**members)
        reply["Body"] = reply["Body"].read()
        return reply

    def seen(self, **members: Any) -> Any:
        """What the model saw of a request."""
        return json.loads(self.invoke(**members)["Body"])

    def open_stream(self, client: Any = None, /, **members: Any) -> Reply:
        members = {"EndpointName": orders.endpoint(), "Body": "", **members}
        reply: Reply = (client or self.client).invoke_endpoint_with_response_stream(**members)
        return reply

    def stream(self, client: Any = None, /, **members: Any) -> Reply:
        """The reply, with its Body read to the end."""
        reply = self.open_stream(client, **members)
        reply["Body"] = b"".join(parts(reply))
        return reply

    def invoke_async(self, client: Any = None, /, body: bytes | str | None = b"x", **members: Any) -> Reply:
        """`body` goes with the call where botocore knows how, else by way of S3; None: nothing goes."""
        client = client or self.client
        if body is not None and self.has("InvokeEndpointAsync", "Body"):
            members = {"Body": body, **members}
        elif body is not None:
            members = {"InputLocation": self.upload(body), **members}
        reply: Reply = client.invoke_endpoint_async(**{"EndpointName": orders.async_endpoint(), **members})
        return reply

    def upload(self, body: bytes | str) -> str:
        bucket, key = required("CONFORMANCE_BUCKET"), f"in/{orders.unique()}"
        self.s3.put_object(Bucket=bucket, Key=key, Body=body)
        return f"s3://{bucket}/{key}"

    def object(self, url: str) -> tuple[str, bytes]:
        """The content type and the bytes of the object at an s3:// URL, once it is there."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        waiter = self.s3.get_waiter("object_exists")
        waiter.wait(Bucket=bucket, Key=key, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        reply = self.s3.get_object(Bucket=bucket, Key=key)
        return reply["ContentType"], reply["Body"].read()

    def has(self, operation: str, *members: str) -> bool:
        """Whether this botocore knows the input members of an operation."""
        shape = self.client.meta.service_model.operation_model(operation).input_shape
        return set(members) <= set(shape.members)

    def only_known(self, operation: str, members: Members) -> Members:
        return {name: value for name, value in members.items() if self.has(operation, name)}


def modelled(call: Callable[[], object], name: str) -> ClientError:
    """The error that a call fails with, which is of the class that botocore makes for a modelled error."""
    error: ClientError = failure(call, ClientError)
    equal(type(error).__name__, name, "the error's class")
    return error


def parts(reply: Reply) -> Iterator[bytes]:
    for event in reply["Body"]:
        equal(list(event), ["PayloadPart"], "the members of an event")
        yield event["PayloadPart"]["Bytes"]


def status(reply: Reply) -> int:
    """The HTTP status of a reply, or of an error's `response`."""
    code: int = reply["ResponseMetadata"]["HTTPStatusCode"]
    return code
