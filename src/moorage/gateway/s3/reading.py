"""Reads requests to S3: what they ask for, and what of them goes on.

What is not in the tables of operations is refused before anything is relayed: an S3 that ignores a sub-resource that
it does not know runs the plain operation instead, and so replaces an object by its tags. The request that goes on is
made anew from what was read here, so that what is authorised and what is run cannot differ.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from moorage.errors import S3Error
from moorage.gateway.s3.documents import Tags
from moorage.gateway.s3.errors import header_not_implemented, invalid_argument
from moorage.gateway.s3.operations import EVERYWHERE, Level, Operation, header_names, operation_of
from moorage.wire import header_text

_LONGEST_KEY_BYTES: Final = 1024
_DROPPED: Final = header_names(
    "x-amz-date x-amz-content-sha256 x-amz-security-token x-amz-user-agent x-amz-api-version x-amz-request-payer "
    "x-amz-acl x-amz-storage-class x-amz-object-ownership x-amz-bypass-governance-retention "
    "x-amz-server-side-encryption x-amz-te"
)
"""Those that say nothing to the S3: about the signature that was verified, and values that are what happens
anyway."""
_STANDARD: Final = header_names(
    "cache-control content-disposition content-encoding content-language content-md5 content-type expires if-match "
    "if-modified-since if-none-match if-unmodified-since range"
)
"""Headers without a prefix that mean something to S3. All others are not relayed."""

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
"""What the name of a bucket is made of. It becomes part of paths and of requests, as identifiers do."""
_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""What S3 names uploads and versions with."""
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_CHECKSUM_NAME: Final = re.compile(rb"x-amz-checksum-(?!mode$|algorithm$|type$)[a-z0-9]+\Z")
_ENCRYPTIONS: Final = frozenset((b"AES256", b"aws:kms"))
"""With a key of the service's own, whose work the file system below can do."""
_ACLS: Final = frozenset((b"private", b"bucket-owner-full-control"))


@dataclass(frozen=True, slots=True)
class CopySource:
    """Another object that an operation reads."""

    bucket: str
    key: str
    version_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Request:
    """A request, read. `query` and `headers` are what goes on to the S3, names of headers in lower case; `told` are
    all headers of the client, and what a presigned query has in their place. `request_tags` and
    `location_constraint` are what its body says, `existing_tags` those of the object that there is, `source_tags`
    those of what is copied."""

    operation: Operation
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: dict[bytes, bytes]
    told: Mapping[bytes, bytes]
    source: CopySource | None = None
    request_tags: Tags = ()
    location_constraint: str = ""
    existing_tags: Tags = ()
    source_tags: Tags = ()

    @property
    def copies_tags(self) -> bool:
        """Whether the copy gets the tags of its source."""
        return (
            self.operation.name == "CopyObject"
            and self.told.get(b"x-amz-tagging-directive", b"COPY") != b"REPLACE"
        )

    @property
    def version_id(self) -> str | None:
        return self.query.get("versionId")


def read(method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> S3Request:
    """What a request is. `target` is without what a signature adds to the query; path style: `/bucket/key?query`.

    Raises:
        S3Error: no such operation, or something in the request that the operation does not have here.
    """
    raw_path, _, raw_query = target.partition(b"?")
    bucket, key = _bucket_and_key(raw_path)
    query = _query(raw_query)
    level = Level.OBJECT if key else Level.BUCKET if bucket else Level.SERVICE
    in_query = {name: value for name, value in query.items() if _is_header(name.lower())}
    query = {name: value for name, value in query.items() if name not in in_query}
    own = {**_from_query(in_query), **headers}  # in this order, as signature version 2 has it
    operation = operation_of(method.decode("latin-1"), level, query, copies=b"x-amz-copy-source" in own)
    _check_query(operation, query)
    check_headers(operation, own)
    source = _copy_source(own[b"x-amz-copy-source"]) if operation.copies else None
    relayed = {
        name: value
        for name, value in own.items()
        if name in _STANDARD
        or (
            name.startswith(b"x-amz-")
            and name not in _DROPPED
            and (operation.takes_body or not is_of_body(name))
        )
    }
    encoding = relayed.pop(b"content-encoding", b"")
    if stored := _stored_encoding(encoding):
        relayed[b"content-encoding"] = stored
    request = S3Request(
        operation=operation,
        bucket=bucket,
        key=key,
        query=query,
        headers=relayed,
        told=own,
        source=source,
    )
    if request.copies_tags:
        relayed.pop(b"x-amz-tagging", None)  # the copy gets those of its source instead
        return request
    return replace(request, request_tags=_tags_of(relayed.get(b"x-amz-tagging", b"")))


def _stored_encoding(value: bytes) -> bytes:
    """That of the object itself, without the one that it comes in."""
    if b"aws-chunked" not in value.lower():
        return value
    encodings = (each.strip() for each in value.split(b","))
    return b", ".join(each for each in encodings if each and each.lower() != b"aws-chunked")


def _tags_of(header: bytes) -> Tags:
    return parse_qsl(header_text.decode(header), keep_blank_values=True)


def operation_name(method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> str | None:
    """The operation that a request says to be, whatever else it has; None if there is no such operation."""
    try:
        raw_path, _, raw_query = target.partition(b"?")
        bucket, key = _bucket_and_key(raw_path)
        level = Level.OBJECT if key else Level.BUCKET if bucket else Level.SERVICE
        copies = b"x-amz-copy-source" in headers
        return operation_of(method.decode("latin-1"), level, _query(raw_query), copies=copies).name
    except S3Error:
        return None


def bucket_of(target: bytes) -> str:
    """The bucket that the target names. Raises `S3Error`."""
    return _bucket_and_key(target.partition(b"?")[0])[0]


def check_key(key: str) -> None:
    """Raises `S3Error` for a key that cannot be kept."""
    if len(key.encode("utf-8", "surrogatepass")) > _LONGEST_KEY_BYTES:
        raise S3Error("KeyTooLongError", 400, "Your key is too long")
    if "\0" in key:
        raise S3Error("InvalidArgument", 400, "A key cannot have a null character.")
    inside = posixpath.normpath(key)
    if inside in (".", "..") or inside.startswith("../"):
        raise S3Error("InvalidURI", 400, f"The key {key!r} leads out of its bucket.")


def check_version_id(version_id: str) -> None:
    """Raises `S3Error` for what is no identifier of a version."""
    if not _IDENTIFIER.fullmatch(version_id):
        raise invalid_argument(
            "Invalid version id specified" if version_id else "Version id cannot be the empty string",
            "versionId",
            version_id,
        )


def _bucket_and_key(raw_path: bytes) -> tuple[str, str]:
    path = _text(unquote_to_bytes(raw_path))
    if not path.startswith("/"):
        raise S3Error("InvalidURI", 400, "Couldn't parse the specified URI.")
    bucket, _, key = path[1:].partition("/")
    if (bucket or key) and not _BUCKET.fullmatch(bucket):
        raise S3Error("InvalidBucketName", 400, "The specified bucket is not valid.", BucketName=bucket)
    if key:
        check_key(key)
    return bucket, key


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", 400, "Couldn't parse the specified URI.") from None


def _query(raw_query: bytes) -> dict[str, str]:
    if not raw_query:
        return {}
    try:
        pairs = parse_qsl(raw_query.decode("latin-1"), keep_blank_values=True, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise S3Error("InvalidURI", 400, "Couldn't parse the specified URI.") from None
    query: dict[str, str] = {}
    for name, value in pairs:
        if name in query:
            raise S3Error("InvalidArgument", 400, f"The query has the parameter {name!r} more than once.")
        query[name] = value
    query.pop("x-id", None)  # SDKs name the operation in it
    return query


def _check_query(operation: Operation, query: Mapping[str, str]) -> None:
    for name in query:
        if name not in operation.subresource and name not in operation.query:
            raise S3Error(
                "NotImplemented",
                501,
                f"The parameter {name!r} of the query implies functionality that {operation.name} does not have on "
                "this server.",
            )
    upload_id = query.get("uploadId")
    if upload_id is not None and not _IDENTIFIER.fullmatch(upload_id):
        raise S3Error(
            "NoSuchUpload",
            404,
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been "
            "aborted or completed.",
            UploadId=upload_id,
        )
    if "versionId" in query:
        check_version_id(query["versionId"])
    if query.get("list-type", "2") != "2":
        raise invalid_argument("Invalid List Type specified in Request", "list-type", query["list-type"])


def _is_header(name: str) -> bool:
    return name.startswith("x-amz-") or name in ("content-type", "content-md5")


def _from_query(in_query: Mapping[str, str]) -> dict[bytes, bytes]:
    """Headers that presigners have put into the query, as if they had come as headers; but for checksums, which some
    of them compute of a body that they do not have."""
    found = {}
    for name, value in in_query.items():
        if not _HEADER_NAME.fullmatch(name) or not header_text.can_carry(value):
            raise S3Error("InvalidArgument", 400, f"The parameter {name!r} of the query cannot be a header.")
        lower = name.lower().encode()
        if not is_of_body(lower):
            found[lower] = value.encode()
    return found


def is_of_body(name: bytes) -> bool:
    """Whether a header tells the checksum of the request's body."""
    return name == b"x-amz-sdk-checksum-algorithm" or _CHECKSUM_NAME.match(name) is not None


def check_headers(operation: Operation, headers: Mapping[bytes, bytes]) -> None:
    """Raises `S3Error` for a header that the operation does not have, or a value that is none here."""
    for name, value in headers.items():
        if not name.startswith(b"x-amz-") or name in EVERYWHERE:
            continue
        if name.startswith(b"x-amz-meta-") and operation.takes_metadata:
            continue
        if not operation.takes_body and is_of_body(name):
            continue  # of the empty body, by which the AWS SDK for Java signs a GET
        if name.startswith(b"x-amz-grant-"):
            raise _acl_refused()
        if name not in operation.headers:
            raise header_not_implemented(name)
        if name == b"x-amz-acl" and value not in _ACLS:
            raise _acl_refused()
        if name == b"x-amz-storage-class" and value != b"STANDARD":
            raise S3Error(
                "InvalidStorageClass",
                400,
                "The storage class you specified is not valid: this server has STANDARD only",
                StorageClassRequested=header_text.decode(value),
            )
        if name == b"x-amz-server-side-encryption" and value not in _ENCRYPTIONS:
            raise invalid_argument(
                "The encryption method specified is not supported: it may be AES256, or aws:kms without a key",
                "x-amz-server-side-encryption",
                header_text.decode(value),
            )
        if name == b"x-amz-object-ownership" and value != b"BucketOwnerEnforced":
            raise _acl_refused()


def _acl_refused() -> S3Error:
    """As buckets have been since April 2023, unless their owner says otherwise."""
    return S3Error(
        "AccessControlListNotSupported",
        400,
        "The bucket does not allow ACLs: its owner owns every object in it. Use a bucket policy instead",
    )


def _copy_source(value: bytes) -> CopySource:
    """`bucket/key`, percent-encoded, with a slash before it and `?versionId=` after it, or not."""
    raw, _, raw_query = value.partition(b"?")
    path = _source_text(raw).removeprefix("/")
    bucket, slash, key = path.partition("/")
    is_bucket = _BUCKET.fullmatch(bucket) is not None
    if not is_bucket or not slash or not key:
        raise invalid_argument(
            "Invalid copy source object key" if is_bucket and slash else "Invalid copy source bucket name",
            "x-amz-copy-source",
            header_text.decode(value),
        )
    check_key(key)
    if "?versionId=" in key:
        raise S3Error(
            "NotImplemented", 501, f"An object with '?versionId=' in its key cannot be copied: {key!r}."
        )
    version_id = None
    if raw_query:
        name, _, text = raw_query.partition(b"=")
        version_id = _source_text(text)
        if name != b"versionId" or not _IDENTIFIER.fullmatch(version_id):
            raise invalid_argument(
                "The query of x-amz-copy-source may have versionId only.",
                "x-amz-copy-source",
                header_text.decode(value),
            )
    return CopySource(bucket, key, version_id)


def _source_text(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise invalid_argument(
            "Invalid copy source encoding.", "x-amz-copy-source", header_text.decode(raw)
        ) from None
