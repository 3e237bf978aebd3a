"""aiobotocore as a client: the behaviours block, its calls run in the event loop of a thread of their own."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from botocore_behaviours import BEHAVIOURS
from botocore_behaviours.caller import Caller
from report import run


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="event loop", daemon=True).start()

    def wait(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def make_client(self, service: str, /, *, config: dict[str, Any], **arguments: Any) -> "Blocking":
        context = get_session().create_client(service, config=AioConfig(**config), **arguments)
        return Blocking(self, self.wait(context.__aenter__()))


class Blocking:
    """An object of aiobotocore: what its methods would have to be awaited for, these wait for."""

    def __init__(self, loop: Loop, awaited: Any) -> None:
        self._loop = loop
        self._awaited = awaited

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._awaited, name)
        if not callable(attribute) or name == "exceptions":
            return attribute

        def call(*arguments: Any, **members: Any) -> Any:
            async def awaited() -> Any:
                reply = attribute(*arguments, **members)
                return await reply if asyncio.iscoroutine(reply) else reply

            reply = self._loop.wait(awaited())
            if isinstance(reply, dict) and "Body" in reply:
                reply["Body"] = Blocking(self._loop, reply["Body"])
            return Blocking(self._loop, reply) if name == "get_waiter" else reply

        return call

    def __iter__(self) -> Iterator[Any]:
        iterator = aiter(self._awaited)

        async def following() -> Any:
            return await anext(iterator, self)

        while (item := self._loop.wait(following())) is not self:
            yield item


if __name__ == "__main__":
    run(BEHAVIOURS, Caller(Loop().make_client))
