"""Who may do an operation of S3, and for which account the S3 is asked then."""

from typing import TYPE_CHECKING, Final, NamedTuple

from moorage.auth.credentials import AccessKey
from moorage.auth.policy import Context
from moorage.errors import AccessDeniedException, S3Error
from moorage.gateway.request import Request
from moorage.gateway.s3 import needs
from moorage.gateway.s3.needs import Need, Signed
from moorage.gateway.s3.reading import S3Request
from moorage.gateway.s3.signing import source_header
from moorage.storage.s3_accounts import ADMINISTRATOR

if TYPE_CHECKING:
    from moorage.gateway.front import GatewayFront

_EXPECTED: Final = b"x-amz-expected-bucket-owner"
_SOURCE_EXPECTED: Final = b"x-amz-source-expected-bucket-owner"


class Admitted(NamedTuple):
    """An operation that its caller may do: the account that it is done for, and what is relayed in its head."""

    account_id: str
    headers: dict[bytes, bytes]


class Caller:
    """The caller of one request to S3, whose signature has been verified."""

    def __init__(self, front: "GatewayFront", request: Request, key: AccessKey, signed: Signed) -> None:
        self._front = front
        self._request = request
        self._signed = signed
        self.key = key

    def admit(self, asked: S3Request) -> Admitted:
        """The caller may do it.

        Raises:
            AccessDeniedException: it may not.
            S3Error: a bucket is not the one of the account that the client expects.
        """
        for need in needs.needs(asked):
            self.authorize(asked, need)
        return self._for_owner(asked)

    def authorize(self, asked: S3Request, need: Need) -> None:
        """Raises `AccessDeniedException`."""

        def context() -> Context:
            return needs.conditions(asked, need, self._signed)

        self._front.authorize(self._request, self.key, need.action, need.resource, context)

    def refusal_of_owner(self, asked: S3Request) -> AccessDeniedException:
        """The S3 has refused the account. The words are those of a bucket whose policy does not let the caller in, so
        that they do not tell whether there is a policy."""
        need = next(iter(needs.needs(asked)))
        return AccessDeniedException(
            f"User: {self.key.principal_arn} is not authorized to perform: {need.action} on resource: "
            f"{need.resource} because no resource-based policy allows the {need.action} action"
        )

    def tags_to_read(self, asked: S3Request) -> tuple[bool, bool]:
        """Whether the tags of the object that there is, and those of what is copied, have a say in what the caller
        may do."""
        existing = source = False
        for need in needs.needs(asked):
            if need.action in needs.ON_EXISTING_TAGS and self._asks_about_tags(need):
                if needs.is_of_source(asked, need):
                    source = True
                else:
                    existing = True
        if asked.copies_tags and not source:
            source = not all(self._may(asked, need) for need in needs.needs_of_copied_tags(asked))
        return existing, source

    def _asks_about_tags(self, need: Need) -> bool:
        prefix = needs.EXISTING_TAG.lower()
        return self._front.access.asks_about(self.key, need.action, need.resource, prefix)

    def _may(self, asked: S3Request, need: Need) -> bool:
        if self._asks_about_tags(need):
            return False
        return self._front.may(
            self._request,
            self.key,
            need.action,
            need.resource,
            lambda: needs.conditions(asked, need, self._signed),
        )

    def owner_of(self, asked: S3Request) -> str:
        """The account that the S3 is asked for: the bucket's owner if its policy tells who that is, else the
        caller's. The S3 itself refuses an account that the bucket does not belong to."""
        if asked.operation.name in ("CreateBucket", "ListBuckets"):
            return self.key.account_id
        return self._front.access.bucket_owner(asked.bucket) or self.key.account_id

    def owner_of_source(self, asked: S3Request) -> str:
        """The same for what is copied."""
        assert asked.source is not None
        return self._front.access.bucket_owner(asked.source.bucket) or self.key.account_id

    def _for_owner(self, asked: S3Request) -> Admitted:
        owner = self.owner_of(asked)
        headers = dict(asked.headers)
        _expect(headers, _EXPECTED, owner)
        source = asked.source
        if source is None:
            return Admitted(owner, headers)
        source_owner = self.owner_of_source(asked)
        _expect(headers, _SOURCE_EXPECTED, source_owner)
        headers[b"x-amz-copy-source"] = source_header(source)
        if source_owner == owner:
            return Admitted(owner, headers)
        # No account may read the one and write the other. The S3 compares both owners with these headers instead.
        headers[_EXPECTED] = owner.encode()
        headers[_SOURCE_EXPECTED] = source_owner.encode()
        return Admitted(ADMINISTRATOR, headers)


def _expect(headers: dict[bytes, bytes], name: bytes, owner: str) -> None:
    """If another account owns the bucket than the client expects, nothing happens."""
    expected = headers.get(name)
    if expected is not None and expected != owner.encode():
        raise S3Error("AccessDenied", 403, "Access Denied")
