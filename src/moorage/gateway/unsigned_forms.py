"""Operations of STS that nobody signs: AssumeRoleWithWebIdentity and AssumeRoleWithSAML.

A form without a signature is one of these, or is refused for the lack of one. Which it is stands in the form, before
or after a token of up to 100,000 characters; so the body is looked through as it passes, and none of it is kept.
"""

import re
from typing import Final

from moorage.errors import MissingAuthenticationTokenException, ServiceError, UnsignedActionNotSupported
from moorage.gateway.request import Call, Request

_LONGEST: Final = 256 * 1024
_ACTION: Final = re.compile(rb"&Action=(AssumeRoleWithWebIdentity|AssumeRoleWithSAML)&")
_KEPT: Final = len(b"&Action=AssumeRoleWithWebIdentity&")
"""An action may come in two pieces."""


def may_be(request: Request) -> bool:
    """Whether an unsigned request is a form of a length that such an operation can have."""
    length = request.content_length
    return (
        request.method == b"POST"
        and request.target == b"/"
        and request.headers.get(b"content-type", b"").startswith(b"application/x-www-form-urlencoded")
        and length is not None
        and length <= _LONGEST
    )


class UnsignedFormCall(Call):
    """Answers one such form."""

    def __init__(self, request: Request, missing: MissingAuthenticationTokenException) -> None:
        """`missing` is how any other form is refused."""
        self._request = request
        self._missing = missing
        self._action = b""
        self._seen = b"&"

    def data(self, chunk: bytes) -> None:
        self._look(chunk)

    def end(self) -> None:
        self._look(b"&")
        error: ServiceError = self._missing
        if self._action:
            error = UnsignedActionNotSupported(
                f"This server does not have the operation {self._action.decode()} of STS."
            )
        self._request.fail(error)

    def _look(self, chunk: bytes) -> None:
        seen = self._seen + chunk
        found = _ACTION.search(seen)
        if found is not None:
            self._action = found[1]
        self._seen = seen[-_KEPT:]
