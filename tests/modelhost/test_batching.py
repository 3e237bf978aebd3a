"""Several invocations as one batch."""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from moorage.modelhost import stacking
from moorage.modelhost.batches import BatchPredictor, Raised
from moorage.modelhost.gathering import Gathering

from .hosts import Host, Starter

LIST, ARRAY = [1, 2], np.array([[1, 2]])


@pytest.mark.parametrize(
    ("one", "other", "are_alike"),
    [
        (ARRAY, np.array([[3, 4], [5, 6]]), True),
        (ARRAY, np.array([[1, 2, 3]]), False),
        (ARRAY, np.array([[1.0, 2.0]]), False),
        (ARRAY, [[1, 2]], False),
        (LIST, ["a"], True),
        ({"a": ARRAY, "b": LIST[:1]}, {"a": ARRAY, "b": ["x"]}, True),
        ({"a": ARRAY}, {"b": ARRAY}, False),
    ],
)
def test_what_is_alike_can_be_stacked(one: Any, other: Any, are_alike: bool) -> None:
    assert (stacking.likeness(one) == stacking.likeness(other)) == are_alike


@pytest.mark.parametrize(
    "data",
    [np.array([1, 2]), np.array(3), np.zeros((0, 2)), [], "text", 3, None, {}, {"a": LIST, "b": ARRAY}],
)
def test_what_has_no_rows_cannot(data: Any) -> None:
    assert stacking.likeness(data) is None


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ([1, 2, 3], [[1], [2, 3]]),
        ((1, 2, 3), [(1,), (2, 3)]),
        ({"a": [1, 2, 3]}, [{"a": [1]}, {"a": [2, 3]}]),
        ([1, 2], None),
        ({"mean": 3.5}, None),
        ("abc", None),
        (np.array(1), None),
        (None, None),
    ],
)
def test_a_prediction_with_a_row_for_each_is_split(prediction: Any, expected: Any) -> None:
    assert stacking.split(prediction, [1, 2]) == expected


def test_arrays_are_stacked_and_split_by_rows() -> None:
    inputs = [np.array([[1, 2]]), np.array([[3, 4], [5, 6]])]
    together = stacking.stack(inputs)
    assert together.tolist() == [[1, 2], [3, 4], [5, 6]]
    parts = stacking.split(together, [stacking.rows(each) for each in inputs])
    assert parts is not None
    assert [part.tolist() for part in parts] == [each.tolist() for each in inputs]


class Calls:
    """A model that notes what it is asked, and fails for a row that holds 13."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, rows: Any) -> Any:
        self.asked.append(len(rows))
        if 13 in rows:
            raise ValueError("13 is none of my numbers")
        return rows * 2


def predict(model: Any, inputs: Sequence[Any], kinds: Sequence[str] | None = None) -> list[Any]:
    results = BatchPredictor(model).predict(inputs, kinds or ["json"] * len(inputs))
    return ["raised" if isinstance(result, Raised) else result.tolist() for result in results]


def test_a_batch_asks_the_model_once() -> None:
    model = Calls()
    assert predict(model, [np.array([[n]]) for n in range(8)]) == [[[2 * n]] for n in range(8)]
    assert model.asked == [8]


def test_one_that_fails_fails_alone() -> None:
    model = Calls()
    inputs = [np.array([[n]]) for n in (1, 2, 13, 4, 5, 6, 7, 8)]
    expected = ["raised" if each == 13 else [[2 * each]] for each in (1, 2, 13, 4, 5, 6, 7, 8)]
    assert predict(model, inputs) == expected
    assert model.asked == [8, 4, 2, 2, 1, 1, 4]


def test_kinds_and_shapes_are_not_mixed() -> None:
    model = Calls()
    inputs = [np.array([[1]]), np.array([[2]]), np.array([[3, 3]]), np.array([[4]])]
    predict(model, inputs, ["json", "csv", "json", "json"])
    assert sorted(model.asked) == [1, 1, 2]


def test_a_model_without_a_row_for_each_is_asked_alone() -> None:
    predictor = BatchPredictor(lambda rows: {"sum": int(rows.sum())})
    for _ in range(2):
        results = predictor.predict([np.array([[1]]), np.array([[2]])], ["json"] * 2)
        assert results == [{"sum": 1}, {"sum": 2}]


def test_a_function_for_batches_gets_and_gives_a_list() -> None:
    predictor = BatchPredictor(lambda data: None, lambda inputs: [len(each) for each in inputs])
    assert predictor.predict(["a", [1, 2]], ["json"] * 2) == [1, 2]
    wrong = BatchPredictor(lambda data: None, lambda inputs: [1, 2, 3])
    results = wrong.predict(["a", "b"], ["json"] * 2)
    assert [str(result.error) for result in results] == [
        "predict_batch_fn gave 3 predictions for 1 inputs"
    ] * 2


A, B, C = frozenset("a"), frozenset("b"), frozenset("c")


def test_nobody_waits_for_others_at_first() -> None:
    assert Gathering(most=8, delay_seconds=1).wait(1, since=10, now=10) == 0


def test_one_client_never_waits() -> None:
    gathering = Gathering(most=8, delay_seconds=1)
    for second in range(5):
        gathering.ran(A, began=second, ended=second + 0.5)
        assert gathering.wait(1, since=second + 0.6, now=second + 0.6) == 0


def test_those_who_were_answered_are_waited_for() -> None:
    gathering = Gathering(most=8, delay_seconds=1)
    gathering.ran(A, began=0, ended=0.4)
    gathering.ran(B, began=0.4, ended=0.8)
    assert gathering.wait(1, since=0.5, now=0.8) == pytest.approx(0.2)  # half of the run, from its end on
    assert gathering.wait(1, since=0.5, now=1.1) == 0
    assert gathering.wait(2, since=0.5, now=0.8) == 0  # all are there


def test_no_wait_is_longer_than_the_delay() -> None:
    gathering = Gathering(most=8, delay_seconds=0.05)
    gathering.ran(A, began=0, ended=10)
    gathering.ran(B, began=10, ended=20)
    assert gathering.wait(1, since=20, now=20) == pytest.approx(0.05)
    assert gathering.wait(1, since=19.9, now=20) == 0


def test_a_full_batch_waits_for_nobody() -> None:
    gathering = Gathering(most=2, delay_seconds=1)
    gathering.ran(A | B | C, began=0, ended=1)
    assert gathering.wait(2, since=1, now=1) == 0


def test_waiting_in_vain_is_given_up_for_a_while() -> None:
    gathering = Gathering(most=8, delay_seconds=1)
    waited = []
    callers = [frozenset({number}) for number in range(200)]  # each comes once
    for number, caller in enumerate(callers):
        waited.append(gathering.wait(1, since=number, now=number) > 0)
        gathering.ran(caller, began=number, ended=number + 0.5)
    assert sum(waited) < 12


COUNTED = """
    import threading, time
    SIZES = []
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        SIZES.append(len(data))
        time.sleep(0.02)
        if (data == 13).any():
            raise ValueError("13 is none of my numbers")
        if (data == -1).any():
            import numpy
            return numpy.array([[max(SIZES)]] * len(data))
        return data * 2
"""


def together(host: Host, bodies: Sequence[str], content_type: str = "application/json") -> list[Any]:
    """The replies to invocations that come at once, on connections of their own."""
    barrier = threading.Barrier(len(bodies))

    def one(body: str) -> Any:
        barrier.wait()
        return host.invoke(body, content_type)

    with ThreadPoolExecutor(len(bodies)) as threads:
        return list(threads.map(one, bodies))


@pytest.mark.parametrize(
    "names", [("MOORAGE_BATCH_SIZE", ""), ("SAGEMAKER_TS_BATCH_SIZE", "SAGEMAKER_TS_MAX_BATCH_DELAY")]
)
def test_a_host_runs_those_that_are_there_together(hosts: Starter, names: tuple[str, str]) -> None:
    environment = {names[0]: 8, **({names[1]: 50} if names[1] else {})}
    host = hosts.ready(COUNTED, **environment)
    for _ in range(3):
        replies = together(host, [f"[[{n}]]" for n in range(20, 36)])
        assert [json.loads(reply.text) for reply in replies] == [[[2 * n]] for n in range(20, 36)]
    largest = json.loads(host.invoke("[[-1]]").text)[0][0]
    assert 2 <= largest <= 8


def test_what_fails_in_a_batch_is_told_to_its_caller_alone(hosts: Starter) -> None:
    host = hosts.ready(COUNTED, MOORAGE_BATCH_SIZE=16)
    replies = together(host, [f"[[{n}]]" for n in (1, 2, 3, 13, 5)] + ["[[1], [2, 3]]", "no json"])
    assert [reply.status for reply in replies] == [200, 200, 200, 500, 200, 400, 400]
    assert "13 is none of my numbers" in replies[3].text


def test_a_function_for_batches_serves_single_invocations_as_well(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return 7
        def input_fn(body, content_type):
            return body
        def predict_batch_fn(inputs, model):
            return [f"{body}:{model}" for body in inputs]
        def output_fn(prediction, accept):
            return prediction
        """)
    assert host.invoke("x").text == "x:7"


def test_one_client_is_not_slower_than_without(hosts: Starter) -> None:
    host = hosts.ready(COUNTED, MOORAGE_BATCH_SIZE=32, MOORAGE_BATCH_DELAY_MS=10_000)
    began = time.monotonic()
    for _ in range(5):
        host.invoke("[[1]]")
    assert time.monotonic() - began < 5


def test_workers_share_the_clients_of_batches(hosts: Starter) -> None:
    host = hosts.ready(COUNTED, MOORAGE_BATCH_SIZE=4, SAGEMAKER_MODEL_SERVER_WORKERS=2)
    replies = together(host, [f"[[{n}]]" for n in range(12)])
    assert [json.loads(reply.text) for reply in replies] == [[[2 * n]] for n in range(12)]
    assert host.stop() == 0


def test_what_cannot_be_a_batch_runs_as_before_and_says_so(hosts: Starter) -> None:
    host = hosts.ready(
        """
        def model_fn(model_dir):
            return None
        def transform_fn(model, body, content_type, accept):
            return body
        """,
        MOORAGE_BATCH_SIZE=4,
    )
    assert host.invoke("as it is").text == "as it is"
    assert "not run in batches: transform_fn makes the whole reply" in host.log


def test_a_function_for_batches_that_takes_a_context_is_called_with_its_own_alone(hosts: Starter) -> None:
    host = hosts.ready(
        """
        def model_fn(model_dir):
            return None
        def predict_batch_fn(inputs, model, context):
            return [context.get_request_header("x-amzn-sagemaker-custom-attributes")] * len(inputs)
        """,
        MOORAGE_BATCH_SIZE=4,
    )
    reply = host.invoke("[1]", X_Amzn_SageMaker_Custom_Attributes="mine")
    assert reply.text == '"mine"'
    assert "not run in batches: predict_batch_fn takes the context of one invocation" in host.log


def test_an_async_function_for_batches_is_refused(hosts: Starter) -> None:
    host = hosts.start("""
        def model_fn(model_dir):
            return None
        async def predict_batch_fn(inputs, model):
            return inputs
        """)
    assert "predict_batch_fn in inference.py is async" in host.wait_failed()


def test_a_function_for_batches_that_gives_too_few_is_told_to_single_callers_too(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        def predict_batch_fn(inputs, model):
            return []
        """)
    assert "predict_batch_fn gave 0 predictions for 1 inputs" in host.invoke("[1]").text


def test_a_function_for_batches_gets_inputs_as_they_are(hosts: Starter) -> None:
    """A row stays a row, in a batch and without one."""
    host = hosts.ready(
        """
        class Model:
            n_features_in_ = 2
            def predict(self, data): raise AssertionError
        def model_fn(model_dir):
            return Model()
        def predict_batch_fn(inputs, model):
            return [each for each in inputs]
        """,
        MOORAGE_BATCH_SIZE=4,
    )
    assert {reply.text for reply in together(host, ["[1, 2]"] * 4)} == {"[1, 2]"}
