"""Which IAM action on which resource a request to S3 is, by its method, path, query and headers.

Source: "Actions, resources, and condition keys for Amazon S3" in the service authorization reference.
"""

from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote_to_bytes

_BUCKET_SUBRESOURCES = {
    ("GET", "location"): "s3:GetBucketLocation",
    ("GET", "versioning"): "s3:GetBucketVersioning",
    ("PUT", "versioning"): "s3:PutBucketVersioning",
    ("GET", "policy"): "s3:GetBucketPolicy",
    ("PUT", "policy"): "s3:PutBucketPolicy",
    ("DELETE", "policy"): "s3:DeleteBucketPolicy",
    ("GET", "acl"): "s3:GetBucketAcl",
    ("PUT", "acl"): "s3:PutBucketAcl",
    ("GET", "cors"): "s3:GetBucketCORS",
    ("PUT", "cors"): "s3:PutBucketCORS",
    ("DELETE", "cors"): "s3:PutBucketCORS",
    ("GET", "tagging"): "s3:GetBucketTagging",
    ("PUT", "tagging"): "s3:PutBucketTagging",
    ("DELETE", "tagging"): "s3:PutBucketTagging",
    ("GET", "lifecycle"): "s3:GetLifecycleConfiguration",
    ("PUT", "lifecycle"): "s3:PutLifecycleConfiguration",
    ("GET", "uploads"): "s3:ListBucketMultipartUploads",
    ("GET", "versions"): "s3:ListBucketVersions",
}
_BUCKET = {
    "GET": "s3:ListBucket",
    "HEAD": "s3:ListBucket",
    "PUT": "s3:CreateBucket",
    "DELETE": "s3:DeleteBucket",
}
_OBJECT_SUBRESOURCES = {
    ("GET", "acl"): "s3:GetObjectAcl",
    ("PUT", "acl"): "s3:PutObjectAcl",
    ("GET", "tagging"): "s3:GetObjectTagging",
    ("PUT", "tagging"): "s3:PutObjectTagging",
    ("DELETE", "tagging"): "s3:DeleteObjectTagging",
    ("GET", "uploadId"): "s3:ListMultipartUploadParts",
    ("DELETE", "uploadId"): "s3:AbortMultipartUpload",
}
_OBJECT = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "POST": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
}

Need = tuple[str, str]
"""An action and the ARN of the resource it is on."""


def needs(method: bytes, target: bytes, headers: Mapping[bytes, bytes]) -> list[Need]:
    """All that a caller must be allowed for this request. Path style: `/bucket/key?query`.

    What is not known is `s3:*` on what it is about, which only a policy that allows everything there grants.
    """
    raw_path, _, raw_query = target.partition(b"?")
    path = unquote_to_bytes(raw_path).decode("utf-8", "surrogateescape")
    query = dict(parse_qsl(raw_query.decode("latin-1"), keep_blank_values=True))
    verb = method.decode("latin-1")
    bucket, _, key = path.lstrip("/").partition("/")
    if not bucket:
        return [("s3:ListAllMyBuckets" if verb == "GET" else "s3:*", "*")]
    bucket_arn = f"arn:aws:s3:::{bucket}"
    if not key:
        if verb == "POST" and "delete" in query:
            return [("s3:DeleteObject", f"{bucket_arn}/*")]
        return [(_action(verb, query, _BUCKET_SUBRESOURCES, _BUCKET), bucket_arn)]
    found = [(_action(verb, query, _OBJECT_SUBRESOURCES, _OBJECT), f"{bucket_arn}/{key}")]
    source = headers.get(b"x-amz-copy-source")
    if source is not None:
        name = unquote_to_bytes(source.partition(b"?")[0]).decode("utf-8", "surrogateescape").lstrip("/")
        found.append(("s3:GetObject", f"arn:aws:s3:::{name}"))
    return found


def _action(
    verb: str,
    query: Mapping[str, str],
    subresources: Mapping[tuple[str, str], str],
    plain: Mapping[str, str],
) -> str:
    for name in query:
        action = subresources.get(("GET" if verb == "HEAD" else verb, name))
        if action is not None:
            return action
    return plain.get(verb, "s3:*")
