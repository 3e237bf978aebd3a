"""How many cases there are: a model or a generator that loses most of them is noticed."""

import json
from collections import Counter

from tests.model_driven import cases
from tests.model_driven.services import SERVED, models


def test_there_are_thousands_of_distinct_cases() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    distinct = set()
    for service in SERVED:
        for operation in models(service):
            for kind, made in (
                ("valid", cases.valid(operation)),
                ("invalid", cases.invalid(operation)),
                ("of another type", () if service == "sagemaker-runtime" else cases.mistyped(operation)),
            ):
                for case in made:
                    if case.is_sendable:
                        counts[operation.name, kind] += 1
                        distinct.add((operation.name, json.dumps(case.document, sort_keys=True)))
    for (operation_name, kind), count in counts.items():
        print(f"{operation_name:40} {kind:16} {count:5}")
    print(f"{len(distinct)} distinct cases")
    assert len(distinct) >= 5000
    assert {name for name, kind in counts if kind == "valid"} == {
        name for names in SERVED.values() for name in names
    }
    by_kind = Counter(kind for _, kind in counts.elements())
    assert min(by_kind.values()) >= 1000, by_kind
