"""The operations of S3 that there are here, and everything that a request to each may carry.

Source: the API model of S3 in botocore, which a test compares these tables with.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from moorage.errors import S3Error


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


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def header_names(text: str) -> frozenset[bytes]:
    return frozenset(name.encode() for name in text.split())


EVERYWHERE: Final = header_names(
    "x-amz-date x-amz-content-sha256 x-amz-security-token x-amz-user-agent x-amz-api-version x-amz-request-payer "
    "x-amz-expected-bucket-owner"
)
"""Headers that each operation may have."""
_CHECKSUMS: Final = header_names(
    "x-amz-checksum-crc32 x-amz-checksum-crc32c x-amz-checksum-crc64nvme x-amz-checksum-sha1 x-amz-checksum-sha256 "
    "x-amz-sdk-checksum-algorithm"
)
_MORE_CHECKSUMS: Final = header_names(
    "x-amz-checksum-md5 x-amz-checksum-sha512 x-amz-checksum-xxhash64 x-amz-checksum-xxhash3 x-amz-checksum-xxhash128"
)
_CHUNKS: Final = header_names("x-amz-decoded-content-length x-amz-trailer")
_STORED: Final = header_names(
    "x-amz-acl x-amz-server-side-encryption x-amz-storage-class x-amz-tagging x-amz-website-redirect-location"
)
_COPIED: Final = header_names(
    "x-amz-copy-source x-amz-copy-source-if-match x-amz-copy-source-if-modified-since "
    "x-amz-copy-source-if-none-match x-amz-copy-source-if-unmodified-since x-amz-source-expected-bucket-owner"
)
_RESPONSE: Final = _set(
    "response-cache-control response-content-disposition response-content-encoding response-content-language "
    "response-content-type response-expires"
)
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
        headers=header_names("x-amz-acl x-amz-object-ownership"),
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
        headers=_CHECKSUMS | header_names("x-amz-confirm-remove-self-bucket-access"),
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
        headers=_CHECKSUMS | header_names("x-amz-bypass-governance-retention"),
        takes_body=True,
    ),
    Operation(
        name="GetObject",
        method="GET",
        level=Level.OBJECT,
        action="s3:GetObject",
        version_action="s3:GetObjectVersion",
        query=_RESPONSE | _set("versionId partNumber"),
        headers=header_names("x-amz-checksum-mode x-amz-te"),
    ),
    Operation(
        name="HeadObject",
        method="HEAD",
        level=Level.OBJECT,
        action="s3:GetObject",
        version_action="s3:GetObjectVersion",
        query=_RESPONSE | _set("versionId partNumber"),
        headers=header_names("x-amz-checksum-mode"),
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
        | header_names("x-amz-checksum-algorithm x-amz-metadata-directive x-amz-tagging-directive"),
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
        headers=header_names(
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
        headers=header_names("x-amz-object-attributes x-amz-max-parts x-amz-part-number-marker"),
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
        headers=_STORED | header_names("x-amz-checksum-algorithm x-amz-checksum-type"),
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
        headers=_COPIED | header_names("x-amz-copy-source-range"),
        copies=True,
    ),
    Operation(
        name="CompleteMultipartUpload",
        method="POST",
        level=Level.OBJECT,
        action="s3:PutObject",
        subresource=_set("uploadId"),
        headers=_CHECKSUMS | _MORE_CHECKSUMS | header_names("x-amz-checksum-type x-amz-mp-object-size"),
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
        headers=header_names("x-amz-if-match-initiated-time"),
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


def operation_of(method: str, level: Level, query: Collection[str], *, copies: bool) -> Operation:
    """The operation that the method, what the path names, and the names of the query's parameters make; `copies` is
    whether there is a source to copy. Raises `S3Error`."""
    for operation in _BY_PATH.get((method, level), ()):
        if operation.subresource.issubset(query) and (copies or not operation.copies):
            return operation
    with_parameters = f" with the parameters {', '.join(sorted(query))}" if query else ""
    raise S3Error(
        "NotImplemented",
        501,
        f"This server does not have the operation {method} on {level.value}{with_parameters}.",
    )
