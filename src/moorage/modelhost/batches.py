"""The predictions for several invocations at once."""

import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from moorage.modelhost import stacking

logger = logging.getLogger("modelhost")


@dataclass(frozen=True, slots=True)
class Raised:
    """In the place of a prediction: what user code raised for this input alone."""

    error: BaseException


class BatchPredictor:
    """Asks the model for several inputs at once, where they are alike; one that fails, fails alone."""

    def __init__(
        self, predict: Callable[[Any], Any], predict_all: Callable[[list[Any]], Any] | None = None
    ) -> None:
        """`predict` takes one input, or several that are stacked; `predict_all`, where there is one, takes a list of
        inputs and gives a list of predictions."""
        self._predict = predict
        self._predict_all = predict_all
        self._is_by_rows = True

    def predict(self, inputs: Sequence[Any], kinds: Sequence[Hashable]) -> list[Any]:
        """A prediction, or `Raised`, for each. Inputs of different kinds are never in one batch."""
        groups: dict[Hashable, list[int]] = {}
        for number, (data, kind) in enumerate(zip(inputs, kinds, strict=True)):
            likeness = "any" if self._predict_all is not None else stacking.likeness(data)
            groups.setdefault(number if likeness is None else (kind, likeness), []).append(number)
        results: list[Any] = [None] * len(inputs)
        for numbers in groups.values():
            found = self._of_group([inputs[number] for number in numbers])
            for number, result in zip(numbers, found, strict=True):
                results[number] = result
        return results

    def _of_group(self, inputs: list[Any]) -> list[Any]:
        try:
            return self._at_once(inputs)
        except Exception as error:
            if len(inputs) == 1:
                return [Raised(error)]
        middle = len(inputs) // 2
        return self._of_group(inputs[:middle]) + self._of_group(inputs[middle:])

    def _at_once(self, inputs: list[Any]) -> list[Any]:
        if self._predict_all is not None:
            return listed(self._predict_all(inputs), len(inputs))
        if len(inputs) == 1:
            return [self._predict(inputs[0])]
        if self._is_by_rows:
            prediction = self._predict(stacking.stack(inputs))
            parts = stacking.split(prediction, [stacking.rows(data) for data in inputs])
            if parts is not None:
                return parts
            self._is_by_rows = False
            logger.warning(
                "invocations are not run in batches: the model gives a %s for several inputs, which has not a row "
                "for each of theirs; define predict_batch_fn(inputs, model), which takes and gives a list",
                type(prediction).__name__,
            )
        return [result for data in inputs for result in self._of_group([data])]


def listed(predictions: Any, expected: int) -> list[Any]:
    """What a `predict_batch_fn` has given. ValueError when it is not as many as there were inputs."""
    result = list(predictions)
    if len(result) != expected:
        raise ValueError(f"predict_batch_fn gave {len(result)} predictions for {expected} inputs")
    return result
