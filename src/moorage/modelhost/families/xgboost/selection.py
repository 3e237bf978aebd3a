"""Selectable inference: what is told of each prediction, by the keys of SAGEMAKER_INFERENCE_OUTPUT.

https://docs.aws.amazon.com/sagemaker/latest/dg/cdf-inference.html
"""

from typing import Any, Final, NamedTuple

from moorage.modelhost.errors import InvocationError

_REGRESSION: Final = ("predicted_score",)
_CLASSES: Final = ("predicted_label", "labels", "raw_score", "raw_scores")
_PROBABILITIES: Final = (
    "predicted_label",
    "labels",
    "probability",
    "probabilities",
    "raw_score",
    "raw_scores",
)

KEYS: Final = {
    "reg:squarederror": _REGRESSION,
    "reg:logistic": _REGRESSION,
    "reg:gamma": _REGRESSION,
    "reg:absoluteerror": _REGRESSION,
    "reg:tweedie": _REGRESSION,
    "binary:logistic": _PROBABILITIES,
    "binary:logitraw": _CLASSES,
    "binary:hinge": _CLASSES,
    "multi:softmax": _CLASSES,
    "multi:softprob": _PROBABILITIES,
}
"""Those that an objective has. Any other key gets NaN."""


class Prediction(NamedTuple):
    """`values` has for each record a number, or one for each class. `class_count` is 0 unless there are several."""

    values: Any
    objective: str
    class_count: int


def select(prediction: Prediction, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """For each record the values of `keys`. 500 as InvocationError for an objective that has none."""
    known = KEYS.get(prediction.objective)
    if known is None:
        raise InvocationError(
            500, f"Objective `{prediction.objective}` unsupported for selectable inference predictions."
        )
    columns = _regression(prediction) if known is _REGRESSION else _classification(prediction)
    unknown = [float("nan")] * len(prediction.values)
    chosen = [columns[key] if key in known else unknown for key in keys]
    return [dict(zip(keys, row, strict=True)) for row in zip(*chosen, strict=True)]


def _regression(prediction: Prediction) -> dict[str, list[Any]]:
    return {"predicted_score": prediction.values.tolist()}


def _classification(prediction: Prediction) -> dict[str, list[Any]]:
    values = prediction.values
    rows = values.tolist()
    if prediction.objective == "multi:softprob":
        best, all_of_them = values.max(axis=1).tolist(), rows
    else:
        best, all_of_them = rows, [[1.0 - each, each] for each in rows]
    is_multiclass = prediction.objective.startswith("multi:")
    classes = list(range(prediction.class_count if is_multiclass else 2))
    return {
        "predicted_label": _labels(prediction),
        "labels": [classes] * len(rows),
        "probability": best,
        "probabilities": all_of_them,
        "raw_score": best,
        "raw_scores": all_of_them,
    }


def _labels(prediction: Prediction) -> list[Any]:
    values = prediction.values
    match prediction.objective:
        case "multi:softprob":
            labels = values.argmax(axis=1)
        case "binary:logistic":
            labels = (values > 0.5).astype(int)
        case "binary:logitraw":
            labels = (values > 0).astype(int)
        case _:  # the prediction is the class
            labels = values
    result: list[Any] = labels.tolist()
    return result
