"""Changes of identities on their way to the gateways, which whoever gives out credentials waits for."""

import asyncio
from typing import Any

from moorage.runtime import controller
from moorage.storage.identity_snapshot import Changed

CHANGED = Changed(frozenset({"AIDAEXAMPLE"}))


async def test_known_is_what_was_published_and_taken_in() -> None:
    happened: list[str] = []

    async def synced() -> None:
        happened.append("synced")

    async def read(changed: Changed) -> Any:
        happened.append("read")
        return {}

    changes = controller._Changes(synced)
    assert await changes.known() == 0
    publishing = asyncio.create_task(changes.publish(read, lambda _: happened.append("told")))
    changes.add(CHANGED)
    assert await changes.known() == 1
    assert await changes.known() == 1
    assert happened == ["read", "told", "synced"]
    changes.add(CHANGED)
    assert await changes.known() == 2
    assert happened[3:] == ["read", "told", "synced"]
    publishing.cancel()


async def test_gateways_that_hang_are_waited_for_once(monkeypatch: Any) -> None:
    monkeypatch.setattr(controller, "_WAIT_FOR_GATEWAYS_SECONDS", 0.05)
    waits = 0

    async def never() -> None:
        nonlocal waits
        waits += 1
        await asyncio.Event().wait()

    async def read(changed: Changed) -> Any:
        return {}

    changes = controller._Changes(never)
    publishing = asyncio.create_task(changes.publish(read, lambda _: None))
    changes.add(CHANGED)
    for _ in range(5):
        assert await changes.known() == 1
    assert waits == 1
    publishing.cancel()
