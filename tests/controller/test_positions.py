"""Where statements are in their policies."""

import json

import pytest

from moorage.auth.aws_managed import AWS_MANAGED
from moorage.controller.iam.positions import Position, statement_positions

from .identities import ADMIN


def test_as_iam_tells_it_of_its_own_policy() -> None:
    """The positions that AWS gives for AdministratorAccess, whose text is like ours."""
    assert statement_positions(AWS_MANAGED[ADMIN].document) == [(Position(3, 17), Position(8, 6))]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("space", ["", " ", "\n", "\r\n\t"])
def test_the_text_between_is_the_statement(indent: int | None, space: str) -> None:
    statements = [
        {"Sid": 'a"]}{', "Effect": "Allow", "Action": ["a:b", "c:d"], "Resource": "*"},
        {"Effect": "Deny", "NotAction": "ü:\\", "Resource": "*", "Condition": {"Null": {"a": "true"}}},
    ]
    written = (space + "," + space).join(json.dumps(each, indent=indent) for each in statements)
    before = f'{{{space}"Id"{space}:{space}[{{"Statement":[1]}},[],{{}}]{space},{space}"Statement"{space}:'
    document = f'{space}{before}{space}[{space}{written}{space}]{space},{space}"Version":"x"{space}}}{space}'
    lines = document.split("\n")

    def index(position: Position) -> int:
        return sum(len(line) + 1 for line in lines[: position.line - 1]) + position.column - 1

    found = [document[index(start) : index(end)] for start, end in statement_positions(document)]
    assert [json.loads(each) for each in found] == statements
    assert all(document[index(start) - 1] in "[," for start, _ in statement_positions(document))
    assert all(each.endswith("}") for each in found)


def test_a_statement_that_is_in_no_list() -> None:
    assert statement_positions('{"Statement": {"Effect": "Deny"}}') == [(Position(1, 14), Position(1, 33))]
