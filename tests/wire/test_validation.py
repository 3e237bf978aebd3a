"""The words for broken constraints."""

import pytest

from moorage.wire import validation


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (-1, "-1"),
        (1_048_576, "1048576"),
        (2**63 - 1, "9223372036854775807"),
        (21_600.0, "21600"),
        (0.25, "0.25"),
        (-1234567.5, "-1234567.5"),
    ],
)
def test_numbers_are_shown_with_all_their_digits(value: float, shown: str) -> None:
    assert validation.at_most(value) == f"Member must have value less than or equal to {shown}"
    assert validation.at_least(value) == f"Member must have value greater than or equal to {shown}"
