"""Calls of the control plane: so many at once, in order, and no more than so many that wait."""

import asyncio

import pytest

from moorage.controller.admission import Admission
from moorage.errors import ThrottlingException


async def test_they_are_let_in_in_order_and_what_is_too_many_is_refused() -> None:
    admission = Admission(at_once=2, most_waiting=3)
    let_go = asyncio.Event()
    inside: list[int] = []

    async def call(number: int) -> None:
        async with admission.place():
            inside.append(number)
            await let_go.wait()

    calls = [asyncio.create_task(call(number)) for number in range(5)]
    while repr(admission) != "<Admission 3 waiting>":
        await asyncio.sleep(0)
    assert inside == [0, 1]
    with pytest.raises(ThrottlingException, match="3 calls of the control plane are waiting"):
        await call(5)
    calls[3].cancel()  # its caller has gone
    let_go.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert inside == [0, 1, 2, 4]
    await call(6)
    assert repr(admission) == "<Admission 0 waiting>"
