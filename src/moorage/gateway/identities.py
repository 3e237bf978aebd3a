"""Who may call, as the feed tells it.

Every state has a revision. After connecting comes a whole one in pieces: `{"begin": revision}`, some
`{"piece": snapshot}` and `{"complete": revision}`. It counts when it is complete; until then does what was known
before. From then on come `{"revision": number, "change": difference}`, each one more than the one before. (Snapshots
and differences are those of `moorage.storage.identity_snapshot`.)
"""

from collections.abc import Mapping
from typing import Any

from moorage.auth.access import Access
from moorage.auth.verifier import Verifier


class Gap(Exception):
    """A change does not follow what was told before: a whole state is needed."""


class Identities:
    """Keeps `access` and `verifier` as they are told."""

    def __init__(self, access: Access, verifier: Verifier) -> None:
        self._access = access
        self._verifier = verifier
        self._fresh: Access | None = None  # while a whole state comes in pieces
        self._revision = -1

    def hear(self, message: Mapping[str, Any]) -> None:
        """Raises `Gap`."""
        if "begin" in message:
            self._fresh = self._access.fresh()
        elif self._fresh is not None and "piece" in message:
            self._fresh.apply(message["piece"])
        elif self._fresh is not None and "complete" in message:
            fresh, self._fresh = self._fresh, None
            self._access.become(fresh)
            self._verifier.replace(self._access.credentials)
            self._revision = message["complete"]
        elif self._fresh is None and message.get("revision") == self._revision + 1:
            self._revision = message["revision"]
            if self._access.apply(message["change"]):
                self._verifier.forget()
        else:
            raise Gap(f"{', '.join(message)} does not follow revision {self._revision} of who may call")
