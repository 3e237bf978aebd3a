"""Operations whose body says something that decides who may do them: tags of an object, the place of a bucket."""

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from moorage.gateway.request import Request
from moorage.gateway.s3.admission import Caller
from moorage.gateway.s3.collected import CollectedS3Relay
from moorage.gateway.s3.documents import read_bucket_configuration, read_tagging, render_tagging
from moorage.gateway.s3.reading import S3Request
from moorage.gateway.s3.relay import Body

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_MOST_BODY_BYTES: Final = 64 * 1024
DESCRIBED: Final = frozenset(("CreateBucket", "PutBucketTagging", "PutObjectTagging"))


class DescribedRelay(CollectedS3Relay):
    """One such operation. What goes on is made anew from what was read."""

    def __init__(
        self, front: "GatewayFront", request: Request, caller: Caller, asked: S3Request, body: Body
    ) -> None:
        """Raises `ServiceError`."""
        super().__init__(front, request, caller, asked, body, front.s3, most_body_bytes=_MOST_BODY_BYTES)

    def message(self, body: bytes) -> bytes:
        asked, content = self._asked, b""
        if asked.operation.name == "PutBucketTagging":
            content = render_tagging(read_tagging(body))
        elif asked.operation.name == "PutObjectTagging":
            asked = replace(asked, request_tags=read_tagging(body))
            content = render_tagging(asked.request_tags)
        else:
            configuration = read_bucket_configuration(body)  # all buckets are in the region of the server
            asked = replace(asked, location_constraint=configuration.get("LocationConstraint", ""))
        admitted = self._caller.admit(asked)
        return self._request_with(content, admitted.account_id, admitted.headers)

    def reply_end(self) -> None:
        if (
            self._small_head is not None
            and self._small_head[0] == 409
            and self._asked.operation.name == "CreateBucket"
            and b"<Code>BucketAlreadyOwnedByYou<" in self._small_body
        ):
            # Creating a bucket that is one's own is no error in us-east-1, and scripts do it every time.
            self._connection = None
            self._request.reply(200, b"Location: /%b\r\n" % self._asked.bucket.encode(), b"")
            return
        super().reply_end()
