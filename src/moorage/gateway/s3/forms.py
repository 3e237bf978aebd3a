"""Uploads from HTML forms (POST Object): the signature is in the body, and over a policy that says what may be sent.

Everything before the file is read, the signature verified, the policy held against the fields, and the caller
authorised; then the form is made anew with the account's signature, and the file flows on as it comes.

Source: "Browser-based uploads using POST" in the S3 API reference, and the same for signature version 2 in the S3
user guide.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from moorage.auth import sigv4
from moorage.auth.credentials import AccessKey
from moorage.errors import S3Error, ServiceError
from moorage.gateway.request import Request
from moorage.gateway.s3.admission import Caller
from moorage.gateway.s3.documents import read_tagging, render_tagging
from moorage.gateway.s3.errors import invalid_argument
from moorage.gateway.s3.needs import Signed
from moorage.gateway.s3.operations import OPERATIONS
from moorage.gateway.s3.reading import S3Request, check_headers, check_key
from moorage.gateway.s3.relay import S3Reply, host_of
from moorage.upstream import UpstreamConnection

if TYPE_CHECKING:
    from moorage.auth.verifier import Verifier
    from moorage.gateway.front import GatewayFront

_MISSING_FIELD: Final = (
    "Bucket POST must contain a field named '{}'.  If it is specified, please check the order of the fields."
)
_MOST_BEFORE_FILE: Final = 64 * 1024
_MOST_BYTES: Final = 5 * 1024**3
_BOUNDARY: Final = re.compile(
    rb'multipart/form-data\s*;.*?boundary=(?:"([^"\r\n]{1,70})"|([^;,\s]{1,70}))', re.I | re.S
)
_NAME: Final = re.compile(rb'[;\s]name="((?:[^"\\\r\n]|\\.)*)"', re.I)
_FILE_NAME: Final = re.compile(rb'[;\s]filename="((?:[^"\\\r\n]|\\.)*)"', re.I)
_NOT_IN_POLICY: Final = frozenset(
    ("x-amz-signature", "file", "policy", "awsaccesskeyid", "signature", "x-amz-security-token", "submit")
)
_OF_SIGNATURE: Final = frozenset((b"x-amz-algorithm", b"x-amz-credential", b"x-amz-signature"))
_SIGNED_BY: Final = ("x-amz-algorithm", "x-amz-credential", "x-amz-date")
"""The fields that a form of ours has beside those of its client, its policy and its signature."""
_RELAYED: Final = frozenset(
    (
        "key",
        "cache-control",
        "content-disposition",
        "content-encoding",
        "content-language",
        "content-type",
        "expires",
        "success_action_redirect",
        "success_action_status",
        "tagging",
        "x-amz-website-redirect-location",
    )
)
_RELAYED_PREFIXES: Final = ("x-amz-meta-", "x-amz-checksum-")
_EXPIRATION: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
_TOKEN: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")


class FormHead(NamedTuple):
    """What stands before the file's bytes. `fields` have names in lower case; `length` counts bytes."""

    fields: Mapping[str, str]
    file_headers: bytes
    length: int


def may_be(request: Request) -> bool:
    """Whether a request without a signature in its head can be such an upload."""
    path = request.target.partition(b"?")[0]
    content_type = request.headers.get(b"content-type", b"")
    return (
        request.method == b"POST"
        and content_type.lower().startswith(b"multipart/form-data")
        and path.strip(b"/") != b""
        and b"/" not in path.strip(b"/")
    )


class FormUpload(S3Reply):
    """One upload."""

    def __init__(self, front: "GatewayFront", request: Request, bucket: str) -> None:
        """Raises `ServiceError`."""
        super().__init__(front, request, b"", front.s3)
        found = _BOUNDARY.match(request.headers.get(b"content-type", b""))
        if found is None:
            raise S3Error(
                "MalformedPOSTRequest",
                400,
                "The body of your POST request is not well-formed multipart/form-data.",
            )
        length = request.content_length
        if length is None:
            raise S3Error("MissingContentLength", 411, "You must provide the Content-Length HTTP header.")
        self._boundary: bytes = found[1] or found[2]
        self._length = length
        self._bucket = bucket
        self._before = bytearray()
        self._read_at = 0  # how much of it is to be there before it is read again
        self._message = b""
        self._held = b""
        self._owner_refuses: ServiceError | None = None
        self._begun = False
        self._ended = False

    def data(self, chunk: bytes) -> None:
        if self._begun:
            if self._connection is None:
                self._held += chunk  # one read at most: reading is paused until there is a connection
            else:
                self._connection.write(chunk)
            return
        self._before += chunk
        if len(self._before) >= self._read_at:
            self._read()

    def end(self) -> None:
        if not self._begun:
            self._read()
        if not self._begun:
            raise invalid_argument("POST requires exactly one file upload per request.", "file", "0")
        self._ended = True
        if self._connection is not None:
            self._connection.request_complete = True

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        connection.request_complete = False
        connection.write(self._message + self._held)
        self._held = b""
        self._request.resume_reading()
        if self._ended:
            connection.request_complete = True

    def refusal_of_owner(self) -> ServiceError | None:
        return self._owner_refuses

    def pause_request(self) -> None:
        self._request.pause_reading()

    def resume_request(self) -> None:
        self._request.resume_reading()

    def _read(self) -> None:
        """It is read from its beginning each time, so that is not done for each of many tiny pieces."""
        head = read_head(bytes(self._before), self._boundary)
        self._read_at = len(self._before) * 5 // 4
        if head is not None:
            self._begin(head)

    def _begin(self, head: FormHead) -> None:
        front, request = self._front, self._request
        key = verify(front.verifier, head.fields)
        signed = Signed("POST", sigv4.ALGORITHM if "x-amz-signature" in head.fields else "AWS")
        if front.limits is not None:
            front.limits.admit(request, key)
        fields = {**head.fields, "key": _key(head)}
        now = datetime.now(UTC)
        sizes = check_policy(head.fields["policy"], {**fields, "bucket": self._bucket}, now)
        asked = _as_put(self._bucket, fields)
        caller = Caller(front, request, key, signed)
        account_id = caller.admit(asked).account_id
        self._owner_refuses = caller.refusal_of_owner(asked)
        relayed = {name: value for name, value in fields.items() if _is_relayed(name)}
        relayed.pop("tagging", None)
        if asked.request_tags:
            relayed["tagging"] = render_tagging(asked.request_tags).decode()
        with_signature = relayed | front.s3_signer.policy_fields(
            account_id, policy_for(self._bucket, relayed, sizes, now)
        )
        form = render_head(with_signature, head.file_headers, self._boundary)
        rest = bytes(self._before[head.length :])
        length = len(form) + self._length - head.length
        content_type = b'multipart/form-data; boundary="%b"' % self._boundary
        self._message = (
            b"POST /%b HTTP/1.1\r\nhost: %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b%b"
            % (
                self._bucket.encode(),
                host_of(request),
                content_type,
                length,
                form,
                rest,
            )
        )
        self._before.clear()
        self._begun = True
        request.pause_reading()
        self._connect()


def _as_put(bucket: str, fields: Mapping[str, str]) -> S3Request:
    """The upload as the PutObject that it is. Raises `S3Error` for what a PutObject is refused for."""
    operation = OPERATIONS["PutObject"]
    told = {name.encode(): value.encode() for name, value in fields.items() if name.startswith("x-amz-")}
    if "acl" in fields:
        told[b"x-amz-acl"] = fields["acl"].encode()
    check_headers(operation, {name: value for name, value in told.items() if name not in _OF_SIGNATURE})
    tagging = fields.get("tagging", "")
    return S3Request(
        operation=operation,
        bucket=bucket,
        key=fields["key"],
        query={},
        headers={},
        told=told,
        request_tags=read_tagging(tagging.encode()) if tagging.strip() else (),
    )


def _is_relayed(name: str) -> bool:
    return name in _RELAYED or (name.startswith(_RELAYED_PREFIXES) and bool(_TOKEN.fullmatch(name)))


def _key(head: FormHead) -> str:
    key = head.fields.get("key", "")
    if not key:
        raise invalid_argument(_MISSING_FIELD.format("key"), "key", "")
    found = _FILE_NAME.search(head.file_headers)
    name = found[1].decode("utf-8", "replace").replace('\\"', '"') if found else ""
    key = key.replace("${filename}", re.split(r"[/\\]", name)[-1])
    if not key:
        raise invalid_argument("User key must have a length greater than 0.", "key", "")
    check_key(key)
    return key


# --- The form ------------------------------------------------------------------------------------------


def read_head(data: bytes, boundary: bytes) -> FormHead | None:
    """What stands before the file; None if not all of it has come.

    Raises:
        S3Error: it is no form, or too much stands before the file.
    """
    delimiter = b"\r\n--" + boundary
    data = b"\r\n" + data  # the first delimiter has no line before it
    at = 0
    fields: dict[str, str] = {}
    while True:
        if not data.startswith((delimiter + b"\r\n")[: len(data) - at], at):
            raise _malformed()
        begin = at + len(delimiter) + 2
        end = data.find(b"\r\n\r\n", begin - 2)
        if end < 0:
            break
        headers = data[begin:end]
        found = _NAME.search(_disposition(headers))
        if found is None:
            raise _malformed()
        name = found[1].decode("utf-8", "replace").lower()
        if name == "file":
            return FormHead(fields, headers, end + 4 - 2)
        value_end = data.find(delimiter, end + 2)
        if value_end < 0:
            break
        value = _text(data[end + 4 : value_end])
        if name in fields and name.startswith("x-amz-meta-"):
            value = f"{fields[name]},{value}"
        elif name in fields:
            raise S3Error("InvalidArgument", 400, f"The form has the field {name!r} more than once.")
        fields[name] = value
        at = value_end
        if data.startswith(b"--", at + len(delimiter)):
            raise invalid_argument("POST requires exactly one file upload per request.", "file", "0")
    if len(data) > _MOST_BEFORE_FILE:
        raise S3Error(
            "MaxPostPreDataLengthExceeded",
            400,
            "Your POST request fields preceding the upload file were too large.",
            MaxPostPreDataLengthBytes=_MOST_BEFORE_FILE,
        )
    return None


def _disposition(headers: bytes) -> bytes:
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            return value
    return b""


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _malformed() from None


def render_head(fields: Mapping[str, str], file_headers: bytes, boundary: bytes) -> bytes:
    """A form's part before the bytes of the file. The names are tokens; a value came between two delimiters with
    this boundary, so the delimiter is not in it."""
    parts = [
        b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (boundary, name.encode(), value.encode())
        for name, value in fields.items()
    ]
    found = _FILE_NAME.search(_disposition(file_headers))
    name = found[1] if found else b"file"
    last = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n' % (boundary, name)
    return b"".join(parts) + last


# --- The signature -------------------------------------------------------------------------------------


def verify(verifier: "Verifier", fields: Mapping[str, str]) -> AccessKey:
    """Whose signature the form has.

    Raises:
        ServiceError: nobody's, or one that does not match.
    """
    if "policy" not in fields:
        raise S3Error("AccessDenied", 403, "Access Denied")
    token = fields.get("x-amz-security-token")
    if "x-amz-signature" in fields or "x-amz-credential" in fields:
        for name in ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature"):
            if not fields.get(name):
                raise invalid_argument(_MISSING_FIELD.format(name), name, "")
        if fields["x-amz-algorithm"] != sigv4.ALGORITHM:
            raise invalid_argument(
                'X-Amz-Algorithm only supports "AWS4-HMAC-SHA256"',
                "x-amz-algorithm",
                fields["x-amz-algorithm"],
            )
        scope = sigv4.parse_credential(fields["x-amz-credential"])
        if (
            scope.service != "s3"
            or scope.terminator != "aws4_request"
            or scope.date != fields["x-amz-date"][:8]
        ):
            raise invalid_argument(
                "The credential of the form is not one for S3 and its date.",
                "x-amz-credential",
                fields["x-amz-credential"],
            )
        key = verifier.key_of(scope.access_key_id, token)
        signer = sigv4.Signer(sigv4.signing_key(key.secret_access_key, scope))
        expected, given = signer.sign(fields["policy"].encode()).decode(), fields["x-amz-signature"]
    elif "signature" in fields or "awsaccesskeyid" in fields:
        for name, called in (("awsaccesskeyid", "AWSAccessKeyId"), ("signature", "Signature")):
            if not fields.get(name):
                raise invalid_argument(_MISSING_FIELD.format(called), called, "")
        key = verifier.key_of(fields["awsaccesskeyid"], token)
        digest = hmac.digest(key.secret_access_key.encode(), fields["policy"].encode(), hashlib.sha1)
        expected, given = base64.b64encode(digest).decode(), fields["signature"]
    else:
        raise S3Error("AccessDenied", 403, "Access Denied")
    if not hmac.compare_digest(expected.encode(), given.encode()):
        raise S3Error(
            "SignatureDoesNotMatch",
            403,
            "The request signature we calculated does not match the signature you provided. "
            "Check your key and signing method.",
            AWSAccessKeyId=key.access_key_id,
            StringToSign=fields["policy"],
            SignatureProvided=given,
        )
    return key


# --- The policy ----------------------------------------------------------------------------------------


def check_policy(policy: str, fields: Mapping[str, str], now: datetime) -> tuple[int, int]:
    """How many bytes the file may have, if the fields are what the policy, in base64, says.

    Raises:
        S3Error: it has expired, a field is not what it says, or it does not speak of a field.
    """
    document = _document(policy)
    if _expiration(document) <= now:
        raise S3Error("AccessDenied", 403, "Invalid according to Policy: Policy expired.")
    least, most = 0, _MOST_BYTES
    spoken_of = set()
    for condition in _conditions(document):
        operator, name, value = condition
        if operator == "content-length-range":
            least, most = max(least, int(name)), min(most, int(value))
            continue
        spoken_of.add(name)
        actual = fields.get(name, "")
        if not (actual == value if operator == "eq" else actual.startswith(value)):
            told = json.dumps([operator, f"${name}", value])
            raise S3Error(
                "AccessDenied", 403, f"Invalid according to Policy: Policy Condition failed: {told}"
            )
    for name in fields:
        if name not in spoken_of and name not in _NOT_IN_POLICY and not name.startswith("x-ignore-"):
            raise S3Error("AccessDenied", 403, f"Invalid according to Policy: Extra input fields: {name}")
    return least, most


def policy_for(bucket: str, fields: Mapping[str, str], sizes: tuple[int, int], now: datetime) -> bytes:
    """The policy, in base64, of a form that is relayed: exactly its fields."""
    conditions: list[Any] = [{"bucket": bucket}, *({name: value} for name, value in fields.items())]
    conditions += [["starts-with", f"${name}", ""] for name in _SIGNED_BY]
    conditions.append(["content-length-range", *sizes])
    expiration = (now + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    return base64.b64encode(json.dumps({"expiration": expiration, "conditions": conditions}).encode())


def _document(policy: str) -> Mapping[str, Any]:
    try:
        document = json.loads(base64.b64decode("".join(policy.split()), validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise _invalid("Invalid JSON.") from None
    if not isinstance(document, dict):
        raise _invalid("Invalid JSON.")
    return document


def _expiration(document: Mapping[str, Any]) -> datetime:
    text = document.get("expiration")
    if not isinstance(text, str):
        raise _invalid("Policy missing expiration.")
    try:
        if not _EXPIRATION.fullmatch(text):
            raise ValueError(text)
        return datetime.fromisoformat(text)
    except ValueError:
        raise _invalid(f"Invalid 'expiration' value: '{text}'") from None


def _conditions(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each as an operator, a field's name in lower case, and a value; of a range the least and the most."""
    conditions = document.get("conditions")
    if not isinstance(conditions, list):
        raise _invalid("Policy missing conditions.")
    found = []
    for condition in conditions:
        if isinstance(condition, dict) and len(condition) == 1:
            [(name, value)] = condition.items()
            found.append(("eq", _field(name), _string(value)))
        elif isinstance(condition, list) and len(condition) == 3 and isinstance(condition[0], str):
            found.append(_listed(condition))
        else:
            raise _invalid("Invalid Condition: a condition is an object of one field, or a list of three.")
    return found


def _listed(condition: Sequence[Any]) -> tuple[str, str, str]:
    operator = condition[0].lower()
    if operator == "content-length-range":
        bounds = [str(each) for each in condition[1:]]
        if not all(each.isascii() and each.isdigit() and len(each) < 20 for each in bounds):
            raise _invalid("Invalid content-length-range: both must be numbers of bytes.")
        return operator, bounds[0], bounds[1]
    if operator not in ("eq", "starts-with"):
        raise _invalid(f"Invalid Condition: unknown operation '{operator}'.")
    name = _string(condition[1])
    if not name.startswith("$"):
        raise _invalid(f"Invalid Condition: '{name}' does not begin with '$'.")
    return operator, _field(name[1:]), _string(condition[2])


def _field(name: object) -> str:
    return _string(name).lower()


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise _invalid("Invalid Condition: names and values must be strings.")
    return value


def _invalid(problem: str) -> S3Error:
    return S3Error("InvalidPolicyDocument", 400, f"Invalid Policy: {problem}")


def _malformed() -> ServiceError:
    return S3Error(
        "MalformedPOSTRequest", 400, "The body of your POST request is not well-formed multipart/form-data."
    )
