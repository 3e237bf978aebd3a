"""Which operation of S3 a request is, and everything that it may carry.

What is not in these tables is refused before anything is relayed: an S3 that ignores a sub-resource that it does not
know runs the plain operation instead, and so replaces an object by its tags. The request that goes on is made anew
from what was read here, so that what is authorised and what is run cannot differ.

Source: the API model of S3 in botocore, which a test compares these tables with.
"""

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from moorage.gateway.s3.documents import Tags
from moorage.gateway.s3.errors import S3Error
from moorage.wire import header_text

_LONGEST_KEY_BYTES: Final = 1024


class Level(Enum):
    """What the path names."""

    SERVICE = "the service"
    BUCKET = "a bucket"
    OBJECT = "an object"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation.

    `subresource` are the parameters of the query that make it this one, `query` those that it may have beside,
    `headers` the same of `x-amz-` headers. `action` is the IAM action, `version_action` the one when a version is
    named. `copies`: it is this one if there is a source to copy. `by_controller`: the controller answers, not the S3.
    """

    name: str
    method: str
    level: Level
    action: str
    version_action: str = ""
    subresource: frozenset[str] = frozenset()
    query: frozenset[str] = frozenset()
    headers: frozenset[bytes] = frozenset()
    takes_metadata: bool = False
    takes_body: bool = False
    copies: bool = False
    by_controller: bool = False


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


# --- The tables ----------------------------------------------------------------------------------------


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _headers(text: str) -> frozenset[bytes]:
    return frozenset(name.encode() for name in text.split())


_EVERYWHERE: Final = _headers(
    "x-amz-date x-amz-content-sha256 x-amz-security-token x-amz-user-agent x-amz-api-version x-amz-request-payer "
    "x-amz-expected-bucket-owner"
)
_DROPPED: Final = _headers(
    "x-amz-date x-amz-content-sha256 x-amz-security-token x-amz-user-agent x-amz-api-version x-amz-request-payer "
    "x-amz-acl x-amz-storage-class x-amz-object-ownership x-amz-bypass-governance-retention "
    "x-amz-server-side-encryption x-amz-te"
)
"""Those that say nothing to the S3: about the signature that was verified, and values that are what happens
anyway."""

_CHECKSUMS: Final = _headers(
    "x-amz-checksum-crc32 x-amz-checksum-crc32c x-amz-checksum-crc64nvme x-amz-checksum-sha1 x-amz-checksum-sha256 "
    "x-amz-sdk-checksum-algorithm"
)
_MORE_CHECKSUMS: Final = _headers(
    "x-amz-checksum-md5 x-amz-checksum-sha512 x-amz-checksum-xxhash64 x-amz-checksum-xxhash3 x-amz-checksum-xxhash128"
)
_CHUNKS: Final = _headers("x-amz-decoded-content-length x-amz-trailer")
_STORED: Final = _headers(
    "x-amz-acl x-amz-server-side-encryption x-amz-storage-class x-amz-tagging x-amz-website-redirect-location"
)
_COPIED: Final = _headers(
    "x-amz-copy-source x-amz-copy-source-if-match x-amz-copy-source-if-modified-since "
    "x-amz-copy-source-if-none-match x-amz-copy-source-if-unmodified-since x-amz-source-expected-bucket-owner"
)
_RESPONSE: Final = _set(
    "response-cache-control response-content-disposition response-content-encoding response-content-language "
    "response-content-type response-expires"
)
_STANDARD: Final = _headers(
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

_LIST: Final = "delimiter encoding-type max-keys prefix"

_OPERATIONS: Final = (
    # --- buckets ---------------------------------------------------------------------------------------
    Operation(
        name="ListBuckets",
        method="GET",
        level=Level.SERVICE,
        action="s3:ListAllMyBuckets",
        query=_set("max-buckets continuation-token prefix bucket-region"),
    ),
    Operation(
        name="CreateBucket",
        method="PUT",
        level=Level.BUCKET,
        action="s3:CreateBucket",
        headers=_headers("x-amz-acl x-amz-object-ownership"),
        takes_body=True,
    ),
    Operation(name="HeadBucket", method="HEAD", level=Level.BUCKET, action="s3:ListBucket"),
    Operation(
        name="DeleteBucket", method="DELETE", level=Level.BUCKET, action="s3:DeleteBucket", by_controller=True
    ),
    Operation(
        name="GetBucketLocation",
        method="GET",
        level=Level.BUCKET,
        action="s3:GetBucketLocation",
        subresource=_set("location"),
    ),
    Operation(
        name="GetBucketVersioning",
        method="GET",
        level=Level.BUCKET,
        action="s3:GetBucketVersioning",
        subresource=_set("versioning"),
    ),
    Operation(
        name="PutBucketVersioning",
        method="PUT",
        level=Level.BUCKET,
        action="s3:PutBucketVersioning",
        subresource=_set("versioning"),
        headers=_CHECKSUMS,
        takes_body=True,
    ),
    Operation(
        name="GetBucketAcl",
        method="GET",
        level=Level.BUCKET,
        action="s3:GetBucketAcl",
        subresource=_set("acl"),
    ),
    Operation(
        name="GetBucketTagging",
        method="GET",
        level=Level.BUCKET,
        action="s3:GetBucketTagging",
        subresource=_set("tagging"),
    ),
    Operation(
        name="PutBucketTagging",
        method="PUT",
        level=Level.BUCKET,
        action="s3:PutBucketTagging",
        subresource=_set("tagging"),
        headers=_CHECKSUMS,
        takes_body=True,
    ),
    Operation(
        name="DeleteBucketTagging",
        method="DELETE",
        level=Level.BUCKET,
        action="s3:PutBucketTagging",
        subresource=_set("tagging"),
    ),
    Operation(
        name="GetBucketPolicy",
        method="GET",
        level=Level.BUCKET,
        action="s3:GetBucketPolicy",
        subresource=_set("policy"),
        by_controller=True,
    ),
    Operation(
        name="PutBucketPolicy",
        method="PUT",
        level=Level.BUCKET,
        action="s3:PutBucketPolicy",
        subresource=_set("policy"),
        headers=_CHECKSUMS | _headers("x-amz-confirm-remove-self-bucket-access"),
        takes_body=True,
        by_controller=True,
    ),
    Operation(
        name="DeleteBucketPolicy",
        method="DELETE",
        level=Level.BUCKET,
        action="s3:DeleteBucketPolicy",
        subresource=_set("policy"),
        by_controller=True,
    ),
    Operation(
        name="GetBucketPolicyStatus",
        method="GET",
        level=Level.BUCKET,
        action="s3:GetBucketPolicyStatus",
        subresource=_set("policyStatus"),
        by_controller=True,
    ),
    # --- lists -----------------------------------------------------------------------------------------
    Operation(
        name="ListObjects",
        method="GET",
        level=Level.BUCKET,
        action="s3:ListBucket",
        query=_set(f"{_LIST} marker"),
    ),
    Operation(
        name="ListObjectsV2",
        method="GET",
        level=Level.BUCKET,
        action="s3:ListBucket",
        subresource=_set("list-type"),
        query=_set(f"{_LIST} continuation-token fetch-owner start-after"),
    ),
    Operation(
        name="ListObjectVersions",
        method="GET",
        level=Level.BUCKET,
        action="s3:ListBucketVersions",
        subresource=_set("versions"),
        query=_set(f"{_LIST} key-marker version-id-marker"),
    ),
    Operation(
        name="ListMultipartUploads",
        method="GET",
        level=Level.BUCKET,
        action="s3:ListBucketMultipartUploads",
        subresource=_set("uploads"),
        query=_set("delimiter encoding-type key-marker max-uploads prefix upload-id-marker"),
    ),
    # --- objects ---------------------------------------------------------------------------------------
    Operation(
        name="DeleteObjects",
        method="POST",
        level=Level.BUCKET,
        action="s3:DeleteObject",
        version_action="s3:DeleteObjectVersion",
        subresource=_set("delete"),
        headers=_CHECKSUMS | _headers("x-amz-bypass-governance-retention"),
        takes_body=True,
    ),
    Operation(
        name="GetObject",
        method="GET",
        level=Level.OBJECT,
        action="s3:GetObject",
        version_action="s3:GetObjectVersion",
        query=_RESPONSE | _set("versionId partNumber"),
        headers=_headers("x-amz-checksum-mode x-amz-te"),
    ),
    Operation(
        name="HeadObject",
        method="HEAD",
        level=Level.OBJECT,
        action="s3:GetObject",
        version_action="s3:GetObjectVersion",
        query=_RESPONSE | _set("versionId partNumber"),
        headers=_headers("x-amz-checksum-mode"),
    ),
    Operation(
        name="PutObject",
        method="PUT",
        level=Level.OBJECT,
        action="s3:PutObject",
        headers=_CHECKSUMS | _MORE_CHECKSUMS | _CHUNKS | _STORED,
        takes_metadata=True,
        takes_body=True,
    ),
    Operation(
        name="CopyObject",
        method="PUT",
        level=Level.OBJECT,
        action="s3:PutObject",
        headers=_COPIED
        | _STORED
        | _headers("x-amz-checksum-algorithm x-amz-metadata-directive x-amz-tagging-directive"),
        takes_metadata=True,
        copies=True,
    ),
    Operation(
        name="DeleteObject",
        method="DELETE",
        level=Level.OBJECT,
        action="s3:DeleteObject",
        version_action="s3:DeleteObjectVersion",
        query=_set("versionId"),
        headers=_headers(
            "x-amz-if-match-last-modified-time x-amz-if-match-size x-amz-bypass-governance-retention"
        ),
    ),
    Operation(
        name="GetObjectAttributes",
        method="GET",
        level=Level.OBJECT,
        action="s3:GetObjectAttributes",
        version_action="s3:GetObjectVersionAttributes",
        subresource=_set("attributes"),
        query=_set("versionId"),
        headers=_headers("x-amz-object-attributes x-amz-max-parts x-amz-part-number-marker"),
    ),
    Operation(
        name="GetObjectTagging",
        method="GET",
        level=Level.OBJECT,
        action="s3:GetObjectTagging",
        version_action="s3:GetObjectVersionTagging",
        subresource=_set("tagging"),
        query=_set("versionId"),
    ),
    Operation(
        name="PutObjectTagging",
        method="PUT",
        level=Level.OBJECT,
        action="s3:PutObjectTagging",
        version_action="s3:PutObjectVersionTagging",
        subresource=_set("tagging"),
        query=_set("versionId"),
        headers=_CHECKSUMS,
        takes_body=True,
    ),
    Operation(
        name="DeleteObjectTagging",
        method="DELETE",
        level=Level.OBJECT,
        action="s3:DeleteObjectTagging",
        version_action="s3:DeleteObjectVersionTagging",
        subresource=_set("tagging"),
        query=_set("versionId"),
    ),
    # --- uploads in parts ------------------------------------------------------------------------------
    Operation(
        name="CreateMultipartUpload",
        method="POST",
        level=Level.OBJECT,
        action="s3:PutObject",
        subresource=_set("uploads"),
        headers=_STORED | _headers("x-amz-checksum-algorithm x-amz-checksum-type"),
        takes_metadata=True,
    ),
    Operation(
        name="UploadPart",
        method="PUT",
        level=Level.OBJECT,
        action="s3:PutObject",
        subresource=_set("partNumber uploadId"),
        headers=_CHECKSUMS | _MORE_CHECKSUMS | _CHUNKS,
        takes_body=True,
    ),
    Operation(
        name="UploadPartCopy",
        method="PUT",
        level=Level.OBJECT,
        action="s3:PutObject",
        subresource=_set("partNumber uploadId"),
        headers=_COPIED | _headers("x-amz-copy-source-range"),
        copies=True,
    ),
    Operation(
        name="CompleteMultipartUpload",
        method="POST",
        level=Level.OBJECT,
        action="s3:PutObject",
        subresource=_set("uploadId"),
        headers=_CHECKSUMS | _MORE_CHECKSUMS | _headers("x-amz-checksum-type x-amz-mp-object-size"),
        takes_body=True,
    ),
    Operation(
        name="ListParts",
        method="GET",
        level=Level.OBJECT,
        action="s3:ListMultipartUploadParts",
        subresource=_set("uploadId"),
        query=_set("max-parts part-number-marker"),
    ),
    Operation(
        name="AbortMultipartUpload",
        method="DELETE",
        level=Level.OBJECT,
        action="s3:AbortMultipartUpload",
        subresource=_set("uploadId"),
        headers=_headers("x-amz-if-match-initiated-time"),
    ),
)
OPERATIONS: Final[Mapping[str, Operation]] = {each.name: each for each in _OPERATIONS}
_BY_PATH: Final[Mapping[tuple[str, Level], tuple[Operation, ...]]] = {
    (method, level): tuple(
        sorted(
            (each for each in _OPERATIONS if (each.method, each.level) == (method, level)),
            key=lambda each: (-len(each.subresource), not each.copies),
        )
    )
    for method, level in {(each.method, each.level) for each in _OPERATIONS}
}


# --- Reading -------------------------------------------------------------------------------------------


def read(method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> S3Request:
    """What a request is. `target` is without what a signature adds to the query; path style: `/bucket/key?query`.

    Raises:
        S3Error: no such operation, or something in the request that the operation does not have here.
    """
    raw_path, _, raw_query = target.partition(b"?")
    bucket, key = _bucket_and_key(raw_path)
    query = _query(raw_query)
    verb = method.decode("latin-1")
    level = Level.OBJECT if key else Level.BUCKET if bucket else Level.SERVICE
    in_query = {name: value for name, value in query.items() if _is_header(name.lower())}
    query = {name: value for name, value in query.items() if name not in in_query}
    own = {**_from_query(in_query), **headers}  # in this order, as signature version 2 has it
    operation = _operation(verb, level, query, copies=b"x-amz-copy-source" in own)
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


def name_of(method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> str | None:
    """The operation that a request says to be, whatever else it has; None if there is no such operation."""
    try:
        raw_path, _, raw_query = target.partition(b"?")
        bucket, key = _bucket_and_key(raw_path)
        level = Level.OBJECT if key else Level.BUCKET if bucket else Level.SERVICE
        copies = b"x-amz-copy-source" in headers
        return _operation(method.decode("latin-1"), level, _query(raw_query), copies=copies).name
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
        raise S3Error(
            "InvalidArgument",
            400,
            "Invalid version id specified" if version_id else "Version id cannot be the empty string",
            ArgumentName="versionId",
            ArgumentValue=version_id,
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


def _operation(verb: str, level: Level, query: Mapping[str, str], *, copies: bool) -> Operation:
    for operation in _BY_PATH.get((verb, level), ()):
        if operation.subresource <= query.keys() and (copies or not operation.copies):
            return operation
    with_parameters = f" with the parameters {', '.join(sorted(query))}" if query else ""
    raise S3Error(
        "NotImplemented",
        501,
        f"This server does not have the operation {verb} on {level.value}{with_parameters}.",
    )


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
        raise S3Error(
            "InvalidArgument",
            400,
            "Invalid List Type specified in Request",
            ArgumentName="list-type",
            ArgumentValue=query["list-type"],
        )


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
        if not name.startswith(b"x-amz-") or name in _EVERYWHERE:
            continue
        if name.startswith(b"x-amz-meta-") and operation.takes_metadata:
            continue
        if not operation.takes_body and is_of_body(name):
            continue  # of the empty body, by which the AWS SDK for Java signs a GET
        if name.startswith(b"x-amz-grant-"):
            raise _acl_refused()
        if name not in operation.headers:
            raise S3Error(
                "NotImplemented",
                501,
                f"A header you provided implies functionality that is not implemented: {header_text.decode(name)}",
                Header=header_text.decode(name),
            )
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
            raise S3Error(
                "InvalidArgument",
                400,
                "The encryption method specified is not supported: it may be AES256, or aws:kms without a key",
                ArgumentName="x-amz-server-side-encryption",
                ArgumentValue=header_text.decode(value),
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
        raise S3Error(
            "InvalidArgument",
            400,
            "Invalid copy source object key" if is_bucket and slash else "Invalid copy source bucket name",
            ArgumentName="x-amz-copy-source",
            ArgumentValue=header_text.decode(value),
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
            raise S3Error(
                "InvalidArgument",
                400,
                "The query of x-amz-copy-source may have versionId only.",
                ArgumentName="x-amz-copy-source",
                ArgumentValue=header_text.decode(value),
            )
    return CopySource(bucket, key, version_id)


def _source_text(raw: bytes) -> str:
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise S3Error(
            "InvalidArgument",
            400,
            "Invalid copy source encoding.",
            ArgumentName="x-amz-copy-source",
            ArgumentValue=header_text.decode(raw),
        ) from None
