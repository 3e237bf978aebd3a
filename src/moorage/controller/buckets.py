"""Policies of buckets, and the deletion of buckets: what the gateway relays of S3, past the embedded S3.

| operation | request | reply |
|---|---|---|
| PutBucketPolicy | `PUT /s3/buckets/{bucket}/policy`, the body is the document | 204 |
| GetBucketPolicy | `GET /s3/buckets/{bucket}/policy` | 200, the document as it was put |
| DeleteBucketPolicy | `DELETE /s3/buckets/{bucket}/policy` | 204 |
| GetBucketPolicyStatus | `GET /s3/buckets/{bucket}/policy-status` | 200, S3's XML |
| DeleteBucket | `DELETE /s3/buckets/{bucket}` | 204 |

The gateway has verified and authorized the request. Besides its usual headers it sends `x-moorage-operation`, the
operation's name, without which a client could reach these routes by its own path; and `x-moorage-s3-account-id`, the
account for which it would sign the request to the S3: the caller's, or that of a bucket whose policy allows the
caller of another account what it asks for. Every reply is S3's, an error's too, to be passed on as it is.

A change is answered when the gateways know of it.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from moorage.auth.bucket_policy_documents import (
    MOST_BYTES,
    MalformedBucketPolicy,
    compile_bucket_policy,
    is_public,
)
from moorage.controller import auditing
from moorage.controller.principals import missing_principal
from moorage.errors import OUR_FAULT, S3Error
from moorage.storage.bucket_policies import AnothersBucket, BucketPolicies, NoSuchBucket
from moorage.storage.embedded_s3 import EmbeddedS3Unavailable, S3Refusal
from moorage.storage.failures import DatabaseUnavailable
from moorage.storage.identities import IdentityStore
from moorage.wire import faults, header_text

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
_XML = "application/xml"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_TRY_AGAIN = "The server cannot tell the state of the bucket now. Please try again."
logger = logging.getLogger(__name__)

Handler = Callable[["_Call"], Awaitable[Response]]


class _Call:
    """A request, and whose bucket it is about."""

    def __init__(self, request: Request) -> None:
        headers = header_text.decode_all(request.scope["headers"])
        self.request = request
        self.bucket: str = request.path_params["bucket"]
        self.account_id = headers.get("x-moorage-s3-account-id", "")
        self.is_anothers = headers["x-moorage-account-id"] != self.account_id
        self.operation = headers.get("x-moorage-operation", "")
        self.request_id = headers.get("x-amzn-requestid", "")

    def check_own(self) -> None:
        """ "If you have the correct permissions, but you're not using an identity that belongs to the bucket owner's
        account, Amazon S3 returns a 405 Method Not Allowed error." """
        if self.is_anothers:
            raise S3Error(
                "MethodNotAllowed", 405, "The specified method is not allowed against this resource."
            )


def bucket_routes(
    policies: BucketPolicies, identities: IdentityStore, *, tell_gateways: Callable[[], Awaitable[None]]
) -> list[Route]:
    """`tell_gateways` returns when all gateways decide by what `policies` has."""

    async def put(call: _Call) -> Response:
        call.check_own()
        document = await _read(call.request)
        await _check(identities, document, call.bucket)
        await policies.put(call.account_id, call.bucket, document.decode())
        await tell_gateways()
        return Response(status_code=204)

    async def get(call: _Call) -> Response:
        call.check_own()
        return Response(await _existing(policies, call), media_type="application/json")

    async def delete(call: _Call) -> Response:
        call.check_own()
        await policies.remove(call.account_id, call.bucket)
        await tell_gateways()
        return Response(status_code=204)

    async def status(call: _Call) -> Response:
        public = "true" if is_public(await _existing(policies, call)) else "false"
        body = f'<PolicyStatus xmlns="{_NAMESPACE}"><IsPublic>{public}</IsPublic></PolicyStatus>'
        return Response(_DECLARATION + body, media_type=_XML)

    async def delete_bucket(call: _Call) -> Response:
        if await policies.delete_bucket(call.account_id, call.bucket):
            await tell_gateways()
        return Response(status_code=204)

    return [
        _route("PutBucketPolicy", "PUT", "/policy", put),
        _route("GetBucketPolicy", "GET", "/policy", get),
        _route("DeleteBucketPolicy", "DELETE", "/policy", delete),
        _route("GetBucketPolicyStatus", "GET", "/policy-status", status),
        _route("DeleteBucket", "DELETE", "", delete_bucket),
    ]


def _route(operation: str, method: str, path: str, handler: Handler) -> Route:
    async def answer(request: Request) -> Response:
        call = _Call(request)
        if call.operation != operation:
            raise HTTPException(404)
        try:
            auditing.note_operation(operation)
            auditing.note_resource(f"arn:aws:s3:::{call.bucket}")
            return await _translated(handler, call)
        except S3Error as error:
            auditing.note_error(error)
            return _error_reply(error, call)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception:
            logger.exception("request %s (%s) failed unexpectedly", call.request_id, operation)
            return _error_reply(S3Error("InternalError", 500, OUR_FAULT), call)

    return Route(f"/s3/buckets/{{bucket}}{path}", answer, methods=[method])


async def _translated(handler: Handler, call: _Call) -> Response:
    """What the handler answers; what it raises is an `S3Error`."""
    try:
        return await handler(call)
    except NoSuchBucket:
        raise S3Error("NoSuchBucket", 404, "The specified bucket does not exist") from None
    except AnothersBucket:
        raise S3Error("AccessDenied", 403, "Access Denied") from None
    except S3Refusal as error:
        raise S3Error(error.code, error.status, error.message) from None
    except EmbeddedS3Unavailable as error:
        logger.error("request %s (%s): %s", call.request_id, call.operation, error)
        raise S3Error("ServiceUnavailable", 503, _TRY_AGAIN) from error
    except DatabaseUnavailable as error:  # the log has been told
        raise S3Error("ServiceUnavailable", 503, _TRY_AGAIN) from error


async def _existing(policies: BucketPolicies, call: _Call) -> str:
    document = await policies.get(call.account_id, call.bucket)
    if document is None:
        raise S3Error("NoSuchBucketPolicy", 404, "The bucket policy does not exist")
    return document


async def _check(identities: IdentityStore, document: bytes, bucket: str) -> None:
    """Raises `S3Error`."""
    try:
        policy = compile_bucket_policy(document, bucket=bucket)
    except MalformedBucketPolicy as error:
        _malformed(str(error))
    for statement in policy.statements:
        if statement.principals is not None and await missing_principal(identities, statement.principals):
            _malformed("Invalid principal in policy")


def _malformed(message: str) -> NoReturn:
    raise S3Error("MalformedPolicy", 400, message)


async def _read(request: Request) -> bytes:
    """The body, or as much of it as tells that it is too long."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            break
    return bytes(body)


def _error_reply(error: S3Error, call: _Call) -> Response:
    body = faults.render_s3(error.code, error.message, {"BucketName": call.bucket}, call.request_id)
    return Response(body, status_code=error.status, media_type=_XML)
