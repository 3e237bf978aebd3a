"""How many connections each client may have."""

import logging

logger = logging.getLogger(__name__)


class Visitors:
    """The connections of this process, and how many of them come from one IP address. 0 is no limit."""

    def __init__(self, most_of_one: int = 0, most: int = 0) -> None:
        self._most_of_one = most_of_one
        self._most = most
        self._all = 0
        self._counts: dict[str, int] = {}
        self._told: set[str] = set()  # of whom the log has said that they have too many; "" is for all

    def __repr__(self) -> str:
        return f"<Visitors {self._all} connections of {len(self._counts)} clients>"

    def enter(self, address: str) -> bool:
        """Count one more, which must `leave` again; False if this client, or this process, has all that it may."""
        count = self._counts.get(address, 0)
        if self._most and self._all >= self._most:
            self._tell("", "connections are refused: there are %d, as max_connections allows", self._all)
            return False
        if self._most_of_one and count >= self._most_of_one:
            self._tell(
                address,
                "connections from %s are refused while it has %d, as max_connections_per_client allows",
                address,
                count,
            )
            return False
        self._counts[address] = count + 1
        self._all += 1
        return True

    def leave(self, address: str) -> None:
        count = self._counts.get(address, 0)
        if not count:
            return
        self._all -= 1
        self._told.discard("")
        if count > 1:
            self._counts[address] = count - 1
        else:
            del self._counts[address]
            self._told.discard(address)

    def _tell(self, about: str, message: str, *details: object) -> None:
        if about not in self._told:
            self._told.add(about)
            logger.warning(message, *details)
