"""Valid documents with any of the optional members together, for Hypothesis to draw."""

import os
from typing import Any

from botocore.model import Shape
from hypothesis import strategies as st

from tests.model_driven.cases import good_values
from tests.model_driven.documents import Place, is_union, least

SEED = int(os.environ.get("MODEL_DRIVEN_SEED", "20260301"))
"""Printed by the tests that fail; another one draws other documents."""

_MOST = 4
"""How many elements a list or map has at most, unless it must have more."""


def documents(shape: Shape) -> st.SearchStrategy[Any]:
    if shape.type_name == "structure":
        return _structures(shape)
    if shape.type_name == "list":
        smallest, most = _sizes(shape)
        return st.lists(documents(shape.member), min_size=smallest, max_size=most)
    if shape.type_name == "map":
        smallest, most = _sizes(shape)
        keys = st.integers(0, _MOST).map(lambda number: least(shape.key, number))
        return st.dictionaries(keys, documents(shape.value), min_size=smallest, max_size=most)
    return st.sampled_from(good_values(Place((), shape, required=True)))


def _structures(shape: Shape) -> st.SearchStrategy[Any]:
    if is_union(shape):
        return st.one_of(
            st.fixed_dictionaries({name: documents(member)}) for name, member in shape.members.items()
        )
    required = {name: documents(shape.members[name]) for name in shape.required_members}
    optional = {name: documents(member) for name, member in shape.members.items() if name not in required}
    return st.fixed_dictionaries(required, optional=optional)


def _sizes(shape: Shape) -> tuple[int, int]:
    smallest = shape.metadata.get("min", 0)
    return smallest, max(smallest, min(shape.metadata.get("max", _MOST), _MOST))
