import os

import pytest

from moorage.modelhost import messages
from moorage.modelhost.messages import Failure, Kind, Message
from moorage.modelhost.shared import SLOTS, Shared, State


@pytest.mark.parametrize("kind", Kind)
def test_a_message_survives_the_wire(kind: Kind) -> None:
    packet = messages.encode(kind, 70_000, b"more")
    assert messages.decode(packet) == Message(kind, 70_000, b"more")


def test_a_long_failure_fits_a_message_and_keeps_what_matters() -> None:
    long = Failure(
        sentence="Do this. " + "\x00" * 100_000, detail="\x00" * 100_000 + "\nValueError: no weights"
    )
    packet = messages.encode(Kind.FAILED, payload=long.encode())
    assert len(packet) <= messages.MAX_BYTES
    failure = Failure.decode(messages.decode(packet).payload)
    assert failure.sentence.startswith("Do this. ")
    assert failure.detail.endswith("ValueError: no weights")


def test_what_one_side_writes_the_other_reads() -> None:
    ours, descriptor = Shared.create()
    theirs = Shared(descriptor)
    os.close(descriptor)
    assert (ours.busy_since[0], ours.served[0]) == (0.0, 0)
    theirs.busy_since[0] = 1.5
    theirs.served[0] += 1
    theirs.states[SLOTS - 1] = State.REPLYING
    assert (ours.busy_since[0], ours.served[0]) == (1.5, 1)
    assert State(ours.states[SLOTS - 1]) is State.REPLYING
    assert State(ours.states[0]) is State.UNTOUCHED
