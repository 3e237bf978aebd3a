"""The ways to invoke an endpoint: request headers ↔ an `Invocation` value, and the headers of the reply.

The table below is the `sagemaker-runtime` service model in the form the hot path wants it; a test compares it
member by member with the model of the installed botocore. Which header carries what differs between operations
(the streaming operation reads `X-Amzn-SageMaker-Accept` where InvokeEndpoint reads `Accept`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

from moorage.errors import ValidationError
from moorage.heads import decimal
from moorage.resources import address_of
from moorage.wire import header_text, validation

_LONGEST_MESSAGE: Final = 2048
_MOST_RENDERED: Final = 2
_ASCII = r"\p{ASCII}*"
_PRINTABLE = r"\A\S[\p{Print}]*\z"
_NAME = r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*"
_COMPONENT = r"^[a-zA-Z0-9]([\-a-zA-Z0-9]*[a-zA-Z0-9])?$"

_SESSION_ID = r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*$"
_SESSION = r"^(NEW_SESSION)$|^[a-zA-Z0-9](-*[a-zA-Z0-9])*$"

_LOCATION = r"^(https|s3)://([^/]+)/?(.*)$"
_PATH_EXTENSION = r"^(?!s3:|https:)[a-zA-Z0-9!_.*'()/-]+$"
_FILENAME = r"^(?!.*\..*\.)[a-zA-Z0-9][a-zA-Z0-9-_\.]*$"

_INTEGER: Final = re.compile(rb"[+-]?[0-9]{1,19}")
_LONGEST_INTEGER: Final = 20

_LOCATION_FORM: Final = re.compile(rb"(?:https|s3)://[^/].*")


def _is_location(value: bytes) -> bool:
    """The pattern is of characters, so bytes that spell none do not match it."""
    return _LOCATION_FORM.fullmatch(value) is not None and header_text.is_text(value)


_SATISFIES: Final[Mapping[str, Callable[[bytes], object]]] = {
    _ASCII: bytes.isascii,
    _PRINTABLE: re.compile(rb"[^\s\x80-\xff][\x20-\x7e]*").fullmatch,
    _NAME: re.compile(rb"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*").fullmatch,
    _COMPONENT: re.compile(rb"[a-zA-Z0-9](?:[\-a-zA-Z0-9]*[a-zA-Z0-9])?").fullmatch,
    _SESSION: re.compile(rb"NEW_SESSION|[a-zA-Z0-9](?:-*[a-zA-Z0-9])*").fullmatch,
    _SESSION_ID: re.compile(rb"[a-zA-Z0-9](?:-*[a-zA-Z0-9])*").fullmatch,
    _LOCATION: _is_location,
    _PATH_EXTENSION: re.compile(rb"[a-zA-Z0-9!_.*'()/-]+").fullmatch,  # without a colon there is no scheme
    _FILENAME: re.compile(rb"[a-zA-Z0-9][a-zA-Z0-9_-]*(?:\.[a-zA-Z0-9_-]*)?").fullmatch,
    ".*": re.compile(rb".*").fullmatch,
}
"""The model's patterns (Java's syntax, unanchored) as tests of a whole value."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    header: bytes

    @property
    def key(self) -> str:
        """The member's name as error messages spell it."""
        return self.name[0].lower() + self.name[1:]


@dataclass(frozen=True, slots=True)
class Member(_Member):
    """One member that travels in a header. Lengths in characters, `min_length` 0 where the model has none."""

    max_length: int
    pattern: str
    min_length: int = 0
    sensitive: bool = False

    @property
    def rule(self) -> "Rule":
        return self, self.min_length, self.max_length, _SATISFIES[self.pattern]

    def violations(self, value: bytes) -> list[str]:
        text = header_text.decode(value)
        rules = []
        if len(text) > self.max_length:
            rules.append(validation.at_most_long(self.max_length))
        if len(text) < self.min_length:
            rules.append(validation.at_least_long(self.min_length))
        if not _SATISFIES[self.pattern](value):
            rules.append(validation.matches(self.pattern))
        shown = "***" if self.sensitive else text[: self.max_length + 1]
        return [validation.violation(shown, self.key, rule) for rule in rules]


@dataclass(frozen=True, slots=True)
class IntegerMember(_Member):
    """One that is an integer within a range."""

    least: int
    most: int

    @property
    def rule(self) -> "Rule":
        return self, 1, _LONGEST_INTEGER, lambda value: not self.violations(value)

    def violations(self, value: bytes) -> list[str]:
        if not _INTEGER.fullmatch(value):
            rule = validation.INTEGER
        elif int(value) > self.most:
            rule = validation.at_most(self.most)
        elif int(value) < self.least:
            rule = validation.at_least(self.least)
        else:
            return []
        shown = header_text.decode(value)[: _LONGEST_INTEGER + 1]
        return [validation.violation(shown, self.key, rule)]


Rule = tuple[Member | IntegerMember, int, int, Callable[[bytes], object]]
"""What the hot path compares: a value's least and greatest length in bytes, and whether it satisfies the rest."""


ENDPOINT_NAME: Final = Member("EndpointName", b"", 63, _NAME)

INVOKE_ENDPOINT: Final = (
    Member("ContentType", b"content-type", 1024, _ASCII),
    Member("Accept", b"accept", 1024, _ASCII),
    Member("CustomAttributes", b"x-amzn-sagemaker-custom-attributes", 1024, _ASCII, sensitive=True),
    Member("TargetModel", b"x-amzn-sagemaker-target-model", 1024, _PRINTABLE, 1),
    Member("TargetVariant", b"x-amzn-sagemaker-target-variant", 63, _NAME),
    Member("TargetContainerHostname", b"x-amzn-sagemaker-target-container-hostname", 63, _NAME),
    Member("InferenceId", b"x-amzn-sagemaker-inference-id", 64, _PRINTABLE, 1),
    Member("EnableExplanations", b"x-amzn-sagemaker-enable-explanations", 64, ".*", 1),
    Member("InferenceComponentName", b"x-amzn-sagemaker-inference-component", 63, _COMPONENT),
    Member("SessionId", b"x-amzn-sagemaker-session-id", 256, _SESSION),
    Member("PrefixAwareId", b"x-amzn-sagemaker-prefix-aware-id", 64, _PRINTABLE, 1),
)

INVOKE_ENDPOINT_WITH_RESPONSE_STREAM: Final = (
    Member("ContentType", b"content-type", 1024, _ASCII),
    Member("Accept", b"x-amzn-sagemaker-accept", 1024, _ASCII),
    Member("CustomAttributes", b"x-amzn-sagemaker-custom-attributes", 1024, _ASCII, sensitive=True),
    Member("TargetVariant", b"x-amzn-sagemaker-target-variant", 63, _NAME),
    Member("TargetContainerHostname", b"x-amzn-sagemaker-target-container-hostname", 63, _NAME),
    Member("InferenceId", b"x-amzn-sagemaker-inference-id", 64, _PRINTABLE, 1),
    Member("InferenceComponentName", b"x-amzn-sagemaker-inference-component", 63, _COMPONENT),
    # A session cannot be opened by a stream: the pattern has no NEW_SESSION.
    Member("SessionId", b"x-amzn-sagemaker-session-id", 256, _SESSION_ID),
    Member("PrefixAwareId", b"x-amzn-sagemaker-prefix-aware-id", 64, _PRINTABLE, 1),
)

INVOKE_ENDPOINT_ASYNC: Final = (
    Member("ContentType", b"x-amzn-sagemaker-content-type", 1024, _ASCII),
    Member("Accept", b"x-amzn-sagemaker-accept", 1024, _ASCII),
    Member("CustomAttributes", b"x-amzn-sagemaker-custom-attributes", 1024, _ASCII, sensitive=True),
    Member("InferenceId", b"x-amzn-sagemaker-inference-id", 64, _PRINTABLE, 1),
    Member("InputLocation", b"x-amzn-sagemaker-inputlocation", 1024, _LOCATION, 1),
    Member("S3OutputPathExtension", b"x-amzn-sagemaker-s3outputpathextension", 512, _PATH_EXTENSION, 1),
    Member("Filename", b"x-amzn-sagemaker-filename", 32, _FILENAME, 1),
    IntegerMember("RequestTTLSeconds", b"x-amzn-sagemaker-requestttlseconds", 60, 21_600),
    IntegerMember("InvocationTimeoutSeconds", b"x-amzn-sagemaker-invocationtimeoutseconds", 1, 3600),
)


class Operation:
    """One of the ways to invoke: its name, and what its headers mean. Compared by identity."""

    __slots__ = ("forwarded_api", "name", "rules")

    def __init__(self, name: str, members: tuple[Member | IntegerMember, ...]) -> None:
        self.name = name
        self.forwarded_api = f"X-Amzn-SageMaker-Forwarded-Api: {name}\r\n".encode()
        self.rules = {member.header: member.rule for member in members}


SYNC: Final = Operation("InvokeEndpoint", INVOKE_ENDPOINT)
STREAM: Final = Operation("InvokeEndpointWithResponseStream", INVOKE_ENDPOINT_WITH_RESPONSE_STREAM)
ASYNC: Final = Operation("InvokeEndpointAsync", INVOKE_ENDPOINT_ASYNC)

_FORWARDED: Final = (
    (b"content-type", b"Content-Type: "),
    (b"accept", b"Accept: "),
    (b"x-amzn-sagemaker-accept", b"Accept: "),
    (b"x-amzn-sagemaker-custom-attributes", b"X-Amzn-SageMaker-Custom-Attributes: "),
    (b"x-amzn-sagemaker-inference-id", b"X-Amzn-SageMaker-Inference-Id: "),
    (b"x-amzn-sagemaker-session-id", b"X-Amzn-SageMaker-Session-Id: "),
    (b"x-amzn-sagemaker-target-model", b"X-Amzn-SageMaker-Target-Model: "),
)
"""What reaches the container, and nothing else does (InvokeEndpoint's API reference).

An operation has one of the two Accepts.
"""

_RETURNED: Final = {
    b"content-type": b"Content-Type: ",
    b"x-amzn-sagemaker-custom-attributes": b"X-Amzn-SageMaker-Custom-Attributes: ",
    # A container may announce a new session under either name: the reference and the containers differ.
    b"x-amzn-sagemaker-session-id": b"X-Amzn-SageMaker-New-Session-Id: ",
    b"x-amzn-sagemaker-new-session-id": b"X-Amzn-SageMaker-New-Session-Id: ",
    b"x-amzn-sagemaker-closed-session-id": b"X-Amzn-SageMaker-Closed-Session-Id: ",
}
"""What of the container's reply reaches the caller, and under which name."""

_RETURNED_BY_STREAM: Final = {
    b"content-type": b"X-Amzn-SageMaker-Content-Type: ",
    b"x-amzn-sagemaker-custom-attributes": b"X-Amzn-SageMaker-Custom-Attributes: ",
}
"""The same for a stream, whose own content type is that of the frames; sessions are not its business."""


@dataclass(slots=True)
class Invocation:
    """One call, validated. `members` holds the headers that were given, by header name.

    `endpoint_name` is an ARN, its name in lower case, where the caller has given one.
    """

    operation: Operation
    endpoint_name: str
    members: dict[bytes, bytes]
    rendered: dict[tuple[bytes, bytes], bytes] = field(default_factory=dict, compare=False, repr=False)
    """Heads of requests to containers without their length, by path and host."""

    @property
    def target_variant(self) -> str | None:
        value = self.members.get(b"x-amzn-sagemaker-target-variant")
        return None if value is None else value.decode("ascii")

    def has(self, header: bytes) -> bool:
        return header in self.members


def parse(operation: Operation, raw_endpoint_name: bytes, headers: dict[bytes, bytes]) -> Invocation:
    """A request's endpoint name (still percent-encoded) and lower-cased headers → an `Invocation`.

    Raises:
        ValidationError: names every member that breaks a constraint, and the constraint.
    """
    name = _endpoint_name(raw_endpoint_name)
    violations = [] if name is not None else ENDPOINT_NAME.violations(unquote_to_bytes(raw_endpoint_name))
    rules = operation.rules
    members = {}
    for header, value in headers.items():
        if header in rules:
            members[header] = value
            member, least, most, satisfies = rules[header]
            if not (least <= len(value) <= most and satisfies(value)):
                violations += member.violations(value)
    if name is None or violations:
        raise ValidationError(validation.describe(violations)[:_LONGEST_MESSAGE])
    return Invocation(operation, name, members)


@lru_cache(maxsize=1024)
def _endpoint_name(raw: bytes) -> str | None:
    """The name decoded, if it is one, or an endpoint's ARN."""
    name = unquote_to_bytes(raw)
    if len(name) <= ENDPOINT_NAME.max_length and _SATISFIES[_NAME](name):
        return name.decode("ascii")
    address = address_of(name.decode("latin-1"))
    return None if address is None else address.arn


def render_container_request(invocation: Invocation, *, path: bytes, host: bytes, length: int) -> bytes:
    """The head of the request to the container."""
    rendered = invocation.rendered.get((path, host))
    if rendered is None:
        lines = [b"POST ", path, b" HTTP/1.1\r\nHost: ", host, b"\r\n"]
        members = invocation.members
        for header, name in _FORWARDED:
            if header in members:
                lines += (name, members[header], b"\r\n")
        lines += (invocation.operation.forwarded_api, b"Content-Length: ")
        rendered = b"".join(lines)
        if len(invocation.rendered) >= _MOST_RENDERED:
            invocation.rendered.clear()
        invocation.rendered[path, host] = rendered
    return b"%b%b\r\n\r\n" % (rendered, decimal(length))


def render_reply_headers(operation: Operation, container_headers: dict[bytes, bytes]) -> bytes:
    """The lines of the caller's reply that come from the container, each ended by CRLF."""
    returned = _RETURNED if operation is SYNC else _RETURNED_BY_STREAM
    lines = {}  # by their names, since a container may give the new session under both of its names
    for header, value in container_headers.items():
        name = returned.get(header)
        if name is not None:
            lines[name] = name + value + b"\r\n"
    return b"".join(lines.values())
