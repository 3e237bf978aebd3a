"""Whose work runs next: examples as tables, and what holds for any history."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moorage.controller.fair_slots import FairSlots


def slots_with(waiting: str, *, parallel: int, most: int) -> FairSlots[str]:
    """The accounts' letters in the order in which their work came."""
    slots: FairSlots[str] = FairSlots(parallel=parallel, most=most)
    for number, account in enumerate(waiting):
        slots.add(account, f"{account}{number}")
    return slots


@pytest.mark.parametrize(
    ("waiting", "parallel", "most", "started"),
    [
        ("", 2, 4, []),
        ("aaaa", 2, 4, ["a0", "a1"]),
        ("aaab", 2, 4, ["a0", "b3"]),
        ("aaabc", 2, 4, ["a0", "b3", "c4"]),
        ("aabbccdd", 4, 8, ["a0", "b2", "c4", "d6"]),
        ("aabb", 4, 8, ["a0", "b2", "a1", "b3"]),
        ("abcdef", 2, 4, ["a0", "b1", "c2", "d3"]),
        ("aa", 1, 1, ["a0"]),
    ],
)
def test_each_account_has_a_slot_and_more_as_there_are_processors(
    waiting: str, parallel: int, most: int, started: list[str]
) -> None:
    assert slots_with(waiting, parallel=parallel, most=most).start() == started


def test_the_small_work_of_another_account_starts_while_all_processors_are_taken() -> None:
    slots = slots_with("aaaaaa", parallel=2, most=4)
    assert slots.start() == ["a0", "a1"]
    slots.add("b", "small")
    assert slots.start() == ["small"]
    slots.finish("b")
    assert slots.start() == [], "a has its two"
    slots.finish("a")
    assert slots.start() == ["a2"]


def test_accounts_take_turns() -> None:
    slots = slots_with("aaabbb", parallel=1, most=1)
    order = []
    while started := slots.start():
        order += started
        slots.finish(started[0][0])
    assert order == ["a0", "b3", "a1", "b4", "a2", "b5"]


def test_work_that_is_given_up_is_not_started() -> None:
    slots = slots_with("aba", parallel=1, most=1)
    assert slots.start() == ["a0"]
    slots.give_up("b", "b1")
    slots.finish("a")
    assert slots.start() == ["a2"]
    slots.finish("a")
    assert slots.start() == []
    assert slots.running == 0


@pytest.mark.parametrize(("parallel", "most"), [(0, 1), (2, 1)])
def test_limits_that_contradict_each_other_are_refused(parallel: int, most: int) -> None:
    with pytest.raises(ValueError, match="must be from 1"):
        FairSlots(parallel=parallel, most=most)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abcde")),
        st.tuples(st.sampled_from(["finish", "give up"]), st.integers(0, 100)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(1, 4), st.integers(0, 4))
def test_in_any_history_slots_are_used_and_no_account_is_left_out(
    steps: list[tuple[str, str | int]], parallel: int, more: int
) -> None:
    most = parallel + more
    slots: FairSlots[tuple[str, int]] = FairSlots(parallel=parallel, most=most)
    numbers = itertools.count()
    waiting: list[tuple[str, int]] = []
    running: list[tuple[str, int]] = []
    for step, what in steps:
        if step == "add":
            work = (str(what), next(numbers))
            slots.add(work[0], work)
            waiting.append(work)
        elif step == "finish" and running:
            slots.finish(running.pop(int(what) % len(running))[0])
        elif step == "give up" and waiting:
            work = waiting.pop(int(what) % len(waiting))
            slots.give_up(work[0], work)
        for work in slots.start():
            assert work == min(each for each in waiting if each[0] == work[0]), "of one account: in order"
            waiting.remove(work)
            running.append(work)
        accounts = {account for account, _ in running}
        assert slots.running == len(running) <= most
        assert len(running) <= parallel + max(len(accounts) - 1, 0)
        if len(running) < most:
            assert all(account in accounts for account, _ in waiting), "each has one"
        if len(running) < parallel:
            assert not waiting, "no processor is idle"
    for _ in range(len(waiting) + len(running)):
        if running:
            slots.finish(running.pop(0)[0])
        running += slots.start()
    assert slots.running == 0, "everything came to its turn"
