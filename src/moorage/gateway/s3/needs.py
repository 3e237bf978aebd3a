"""Which actions on which resources a request to S3 needs, and what conditions may ask of it.

Source: "Actions, resources, and condition keys for Amazon S3" in the service authorization reference, and "Required
permissions for Amazon S3 API operations" in the S3 user guide.
"""

from collections.abc import Iterator
from typing import NamedTuple

from moorage.auth.policy import Context
from moorage.gateway.s3.operations import Level
from moorage.gateway.s3.reading import CopySource, S3Request
from moorage.wire import header_text


class Need(NamedTuple):
    """An action, and the ARN of the resource that it is on."""

    action: str
    resource: str


_HEADER_KEYS = {
    "s3:x-amz-acl": b"x-amz-acl",
    "s3:x-amz-copy-source": b"x-amz-copy-source",
    "s3:x-amz-metadata-directive": b"x-amz-metadata-directive",
    "s3:x-amz-storage-class": b"x-amz-storage-class",
    "s3:x-amz-website-redirect-location": b"x-amz-website-redirect-location",
    "s3:x-amz-content-sha256": b"x-amz-content-sha256",
    "s3:x-amz-server-side-encryption": b"x-amz-server-side-encryption",
    "s3:x-amz-object-ownership": b"x-amz-object-ownership",
    "s3:if-match": b"if-match",
    "s3:if-none-match": b"if-none-match",
}
_QUERY_KEYS = {"s3:prefix": "prefix", "s3:delimiter": "delimiter", "s3:max-keys": "max-keys"}
_LISTS = frozenset(("s3:ListBucket", "s3:ListBucketVersions"))
EXISTING_TAG = "s3:ExistingObjectTag/"
ON_EXISTING_TAGS = frozenset(
    (
        "s3:GetObject",
        "s3:GetObjectVersion",
        "s3:GetObjectAttributes",
        "s3:GetObjectVersionAttributes",
        "s3:GetObjectTagging",
        "s3:GetObjectVersionTagging",
        "s3:PutObjectTagging",
        "s3:PutObjectVersionTagging",
        "s3:DeleteObjectTagging",
        "s3:DeleteObjectVersionTagging",
    )
)
"""Actions whose conditions see the tags of the object that there is."""


class Signed(NamedTuple):
    """How a request was signed: `where` in the words of `s3:authType`, `algorithm` in those of `s3:signatureversion`;
    of a presigned one its age in milliseconds, if the signature tells it."""

    where: str
    algorithm: str
    age: int | None = None


def needs(request: S3Request) -> Iterator[Need]:
    """All that the caller must be allowed, the operation's own first. Not those of DeleteObjects, whose keys are in
    its body."""
    operation = request.operation
    if operation.level is Level.SERVICE:
        yield Need(operation.action, "*")
        return
    bucket = request.bucket
    if operation.level is Level.BUCKET:
        yield Need(operation.action, bucket_arn(bucket))
        return
    resource = object_arn(bucket, request.key)
    version = request.version_id is not None
    yield Need((version and operation.version_action) or operation.action, resource)
    if operation.name == "GetObjectAttributes":
        yield Need("s3:GetObjectVersion" if version else "s3:GetObject", resource)
    if operation.name != "PutObjectTagging" and request.request_tags:
        yield Need("s3:PutObjectTagging", resource)
    if request.source is not None:
        yield need_of_source(request.source)
    if request.copies_tags and request.source_tags:
        yield from needs_of_copied_tags(request)


def need_of_source(source: CopySource) -> Need:
    action = "s3:GetObject" if source.version_id is None else "s3:GetObjectVersion"
    return Need(action, object_arn(source.bucket, source.key))


def needs_of_copied_tags(request: S3Request) -> Iterator[Need]:
    """For a copy of an object that has tags, which the copy gets too."""
    source = request.source
    assert source is not None
    reading = "s3:GetObjectTagging" if source.version_id is None else "s3:GetObjectVersionTagging"
    yield Need(reading, object_arn(source.bucket, source.key))
    yield Need("s3:PutObjectTagging", object_arn(request.bucket, request.key))


def need_of_deletion(bucket: str, key: str, version_id: str | None) -> Need:
    """For one key of DeleteObjects."""
    action = "s3:DeleteObject" if version_id is None else "s3:DeleteObjectVersion"
    return Need(action, object_arn(bucket, key))


def bucket_arn(bucket: str) -> str:
    return f"arn:aws:s3:::{bucket}"


def object_arn(bucket: str, key: str) -> str:
    return f"arn:aws:s3:::{bucket}/{key}"


def is_of_source(request: S3Request, need: Need) -> bool:
    """Whether a need is about what is copied, and not about what is written."""
    return request.source is not None and need.action.startswith("s3:Get")


def conditions(request: S3Request, need: Need, signed: Signed) -> Context:
    """The condition keys of S3 that the request tells."""
    context: dict[str, str | tuple[str, ...]] = {
        "s3:authType": signed.where,
        "s3:signatureversion": signed.algorithm,
    }
    if signed.age is not None:
        context["s3:signatureAge"] = str(signed.age)
    for key, header in _HEADER_KEYS.items():
        value = request.told.get(header)
        if value is not None:
            context[key] = header_text.decode(value)
    if need.action in _LISTS:
        context |= {key: request.query[name] for key, name in _QUERY_KEYS.items() if name in request.query}
    version_id = request.version_id
    if request.source is not None and is_of_source(request, need):
        version_id = request.source.version_id
    if version_id is not None:
        context["s3:VersionId"] = version_id
    if request.request_tags and need.action.startswith("s3:Put"):
        context |= {f"s3:RequestObjectTag/{key}": value for key, value in request.request_tags}
        context["s3:RequestObjectTagKeys"] = tuple(key for key, _ in request.request_tags)
    if need.action in ON_EXISTING_TAGS:
        tags = request.source_tags if is_of_source(request, need) else request.existing_tags
        context |= {f"{EXISTING_TAG}{key}": value for key, value in tags}
    if request.location_constraint:
        context["s3:LocationConstraint"] = request.location_constraint
    return context
