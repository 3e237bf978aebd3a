"""DeleteObjects: each key is decided by itself, and those that are refused are told of beside the others' results."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple
from xml.etree import ElementTree

from moorage.errors import AccessDeniedException, S3Error
from moorage.gateway.request import Request
from moorage.gateway.s3 import needs
from moorage.gateway.s3.admission import Caller
from moorage.gateway.s3.collected import CollectedS3Relay
from moorage.gateway.s3.documents import NAMESPACE, XML, escaped, malformed, name_of, parse, values_of
from moorage.gateway.s3.reading import S3Request, check_key, check_version_id
from moorage.gateway.s3.relay import Body

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_DELETED: Final = re.compile(rb"<Deleted>.*?</Deleted>", re.DOTALL)
MOST_KEYS: Final = 1000
_MOST_BODY_BYTES: Final = 2 * 1024 * 1024


class Deletion(NamedTuple):
    """One object to be deleted. `conditions` are the elements beside its key and version."""

    key: str
    version_id: str | None
    conditions: Mapping[str, str]


class Refused(NamedTuple):
    """One that is not deleted, and why."""

    deletion: Deletion
    code: str
    message: str


class DeleteObjects(CollectedS3Relay):
    """One call of DeleteObjects."""

    def __init__(
        self, front: "GatewayFront", request: Request, caller: Caller, asked: S3Request, body: Body
    ) -> None:
        """Raises `ServiceError`."""
        super().__init__(front, request, caller, asked, body, front.s3, most_body_bytes=_MOST_BODY_BYTES)
        self._refused: list[Refused] = []
        self._quiet = False

    def message(self, body: bytes) -> bytes:
        deletions, self._quiet = read(body)
        allowed = [each for each in deletions if self._is_allowed(each)]
        if not allowed:
            self._request.reply(200, b"Content-Type: application/xml\r\n", render_result(self._refused))
            return b""
        owner = self._caller.owner_of(self._asked)
        return self._request_with(render(allowed), owner, self._asked.headers)

    def reply_end(self) -> None:
        if self._small_head is not None and self._small_head[0] == 200:
            told = self._small_body.rpartition(b"</DeleteResult>")[0]
            if self._quiet:
                told = _DELETED.sub(b"", told)
            self._small_body = told + _errors(self._refused).encode() + b"</DeleteResult>"
        super().reply_end()

    def reply_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self._small_head = status, b"Content-Type: application/xml\r\n"  # whatever its length is

    def _is_allowed(self, deletion: Deletion) -> bool:
        try:
            check_key(deletion.key)
            if deletion.version_id is not None:
                check_version_id(deletion.version_id)
            need = needs.need_of_deletion(self._asked.bucket, deletion.key, deletion.version_id)
            self._caller.authorize(self._asked, need)
        except AccessDeniedException as error:
            self._refused.append(Refused(deletion, "AccessDenied", error.message))
            return False
        except S3Error as error:
            self._refused.append(Refused(deletion, error.code, error.message))
            return False
        return True


# --- Formats -------------------------------------------------------------------------------------------

_CONDITIONS: Final = ("ETag", "LastModifiedTime", "Size")


def read(body: bytes) -> tuple[list[Deletion], bool]:
    """The objects that a body names, and whether only errors are to be told.

    Raises:
        S3Error: it is not the XML of DeleteObjects.
    """
    deletions, quiet = [], False
    for element in parse(body, "Delete"):
        match name_of(element):
            case "Object":
                deletions.append(_deletion(element))
            case "Quiet":
                quiet = (element.text or "").strip().lower() == "true"
            case _:
                raise malformed()
    if not 1 <= len(deletions) <= MOST_KEYS:
        raise malformed()
    return deletions, quiet


def _deletion(element: ElementTree.Element) -> Deletion:
    values = values_of(element, ("Key", "VersionId", *_CONDITIONS))
    key = values.pop("Key", "")
    if not key:
        raise malformed()
    return Deletion(key, values.pop("VersionId", None) or None, values)


def render(deletions: list[Deletion]) -> bytes:
    """The body that the S3 gets."""
    objects = "".join(f"<Object>{_identity(each)}{_conditions(each)}</Object>" for each in deletions)
    return f'{XML}<Delete xmlns="{NAMESPACE}">{objects}</Delete>'.encode()


def render_result(refused: list[Refused]) -> bytes:
    """The reply when nothing is deleted."""
    return f'{XML}<DeleteResult xmlns="{NAMESPACE}">{_errors(refused)}</DeleteResult>'.encode()


def _errors(refused: list[Refused]) -> str:
    return "".join(
        f"<Error>{_identity(each.deletion)}<Code>{each.code}</Code>"
        f"<Message>{escaped(each.message)}</Message></Error>"
        for each in refused
    )


def _identity(deletion: Deletion) -> str:
    version = deletion.version_id
    told = "" if version is None else f"<VersionId>{escaped(version)}</VersionId>"
    return f"<Key>{escaped(deletion.key)}</Key>{told}"


def _conditions(deletion: Deletion) -> str:
    return "".join(f"<{name}>{escaped(value)}</{name}>" for name, value in deletion.conditions.items())
