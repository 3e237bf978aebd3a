"""The tags of the object that there is, read before an operation on it is decided: where a policy asks for them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from moorage.errors import S3Error, ServiceError
from moorage.gateway.relay import Relay
from moorage.gateway.request import Call, Request
from moorage.gateway.s3.admission import Caller
from moorage.gateway.s3.documents import Tags, read_tagging
from moorage.gateway.s3.operations import OPERATIONS
from moorage.gateway.s3.reading import CopySource, S3Request
from moorage.gateway.s3.relay import host_of
from moorage.gateway.s3.signing import target_of
from moorage.upstream import UpstreamConnection

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_MOST_BYTES: Final = 64 * 1024


class _Wanted(NamedTuple):
    """An object whose tags are read, and the account that owns the bucket."""

    of_source: bool
    place: CopySource
    owner: str


class TagsFirst(Relay):
    """Reads the tags, then lets the operation begin, which is the request's call from there on. Nothing of the body
    is taken before."""

    def __init__(
        self,
        front: "GatewayFront",
        request: Request,
        caller: Caller,
        asked: S3Request,
        begin: Callable[[S3Request], Call],
        *,
        existing: bool,
        source: bool,
    ) -> None:
        """Of which objects: the one that there is, what is copied."""
        super().__init__(front, request, b"", front.s3)
        self._repeatable = True
        self._asked = asked
        self._begin = begin
        self._wanted: list[_Wanted] = []
        if existing:
            place = CopySource(asked.bucket, asked.key, asked.version_id)
            self._wanted.append(_Wanted(False, place, caller.owner_of(asked)))
        if source and asked.source is not None:
            self._wanted.append(_Wanted(True, asked.source, caller.owner_of_source(asked)))
        self._status = 0
        self._body = b""
        self._parts: list[bytes] = []
        self._ended = False
        if request.content_length != 0:  # else it is to be noticed when the client leaves
            request.pause_reading()
        self._connect()

    def data(self, chunk: bytes) -> None:
        self._parts.append(chunk)  # one read at most: reading is paused

    def end(self) -> None:
        self._ended = True

    def connected(self, connection: UpstreamConnection) -> None:
        self._connecting = None
        self._connection = connection
        _, place, owner = self._wanted[0]
        query = {"tagging": ""}
        if place.version_id is not None:
            query["versionId"] = place.version_id
        reading = S3Request(
            operation=OPERATIONS["GetObjectTagging"],
            bucket=place.bucket,
            key=place.key,
            query=query,
            headers={},
            told={},
        )
        head = self._front.s3_signer.head(
            owner, b"GET", target_of(reading), {b"host": host_of(self._request)}, framing=b""
        )
        connection.write(head)

    def reply_head(self, status: int, headers: Mapping[bytes, bytes]) -> None:
        self._status = status

    def reply_data(self, chunk: bytes) -> None:
        if len(self._body) <= _MOST_BYTES:
            self._body += chunk

    def reply_end(self) -> None:
        self._connection = None
        try:
            tags = self._tags()
            wanted = self._wanted.pop(0)
            if wanted.of_source:
                self._asked = replace(self._asked, source_tags=tags)
            else:
                self._asked = replace(self._asked, existing_tags=tags)
            if self._wanted:
                self._body = b""
                self._connect()
                return
            call = self._begin(self._asked)
        except ServiceError as error:
            self._fail(error)
            return
        self._hand_over(call)

    def pause_request(self) -> None:
        """The request is written in one piece."""

    def resume_request(self) -> None:
        """Nothing was paused."""

    def _hand_over(self, call: Call) -> None:
        request = self._request
        request.call = call
        request.resume_reading()
        try:
            for chunk in self._parts:
                call.data(chunk)
            if self._ended:
                call.end()
        except ServiceError as error:
            call.cancel()
            self._fail(error)

    def _tags(self) -> Tags:
        """None of an object that is not there, of the mark of a deletion, or of an object that is another account's:
        what is asked is refused then anyway."""
        if self._status == 200:
            return read_tagging(self._body)
        if self._status in (403, 404, 405):
            return ()
        raise S3Error("InternalError", 500, f"The tags of the object cannot be read: status {self._status}.")
