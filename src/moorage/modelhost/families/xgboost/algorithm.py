"""XGBoost without code, as for models of the built-in algorithm."""

import logging
import re
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple

from moorage.modelhost import encoding
from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.families.base import Answer, Family
from moorage.modelhost.families.xgboost import boosters, matrices, replies, selection
from moorage.modelhost.families.xgboost.boosters import Boosters
from moorage.modelhost.families.xgboost.selection import Prediction
from moorage.modelhost.settings import Settings

logger = logging.getLogger(__name__)

# From then on the images take the features of libsvm as counted from 1 where none is 0.
_FIRST_ONE_BASED: Final = (3, 2)


class Request(NamedTuple):
    kind: str
    matrix: Any


class AlgorithmMode(Family):
    distributions: ClassVar = ("xgboost",)
    default_accept: ClassVar = encoding.CSV

    def load(self, model_dir: Path) -> Boosters:
        default = encoding.media_type(self.accept)
        if default not in replies.ROW_ENCODERS:
            raise StartupError(
                f"SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT is {self.accept}: set it to one of "
                f"{', '.join(replies.ROW_ENCODERS)}."
            )
        model = boosters.load(model_dir, ensemble=self.settings.inference_ensemble)
        _warn_of_unknown_keys(self.settings.inference_output, model.objective)
        return model

    def check(self, model: Boosters) -> None:
        """Whatever `load` gives can be asked."""

    def is_text(self, content_type: str | None) -> bool:
        return False

    def decode(self, body: bytes | str, content_type: str | None) -> Request:
        """204 and 415 as InvocationError."""
        if not body:
            raise InvocationError(204, "")
        content_type = content_type or matrices.LIBSVM
        kind = matrices.kind(content_type)
        try:
            one_based = counts_from_one(self.settings)
            return Request(kind, matrices.read(body, content_type, one_based=one_based))
        except Exception as error:  # of whatever kind: the body is not what it is said to be
            raise InvocationError(
                415,
                f"Loading {kind} data failed with Exception, please ensure data is in {kind} format:\n "
                f"{type(error)}\n {error}",
            ) from error

    def predict(self, data: Request, model: Boosters) -> Prediction:
        """400 as InvocationError."""
        try:
            if model.pickled:
                _check_width(data, model.feature_count)
            return Prediction(model.predict(data.matrix), model.objective, model.class_count)
        except Exception as error:
            raise InvocationError(400, f"Unable to evaluate payload provided: {error}") from error

    def encode(self, prediction: Prediction, accept: str) -> Answer:
        media = self._media(accept)
        keys = self.settings.inference_output
        is_batch = self.settings.is_batch_transform
        if keys:
            body = replies.ROW_ENCODERS[media](selection.select(prediction, keys))
            return body + b"\n" if is_batch and media == encoding.CSV else body, media
        scores = prediction.values.tolist()
        if is_batch:
            return replies.scores_as_lines(scores), media
        if media == encoding.CSV:
            return replies.scores_as_csv(scores), media
        return replies.ROW_ENCODERS[media]([{"score": score} for score in scores]), media

    def _media(self, accept: str) -> str:
        for wanted in encoding.preferences(accept):
            media = encoding.media_type(self.accept) if wanted == "*/*" else wanted
            if media in replies.ROW_ENCODERS:
                return media
        raise InvocationError(
            406,
            f"Accept type {accept} is not supported. Please use supported accept types: "
            f"{sorted(replies.ROW_ENCODERS)}.",
        )


def counts_from_one(settings: Settings) -> bool:
    """Whether the image's version does so in libsvm; one without a number is the newest."""
    version = re.match(r"\d+(\.\d+)?", settings.framework_version)
    if version is None:
        return True
    numbers = tuple(map(int, version[0].split(".")))
    return numbers >= _FIRST_ONE_BASED[: len(numbers)]


def _check_width(data: Request, expected: int) -> None:
    width = data.matrix.num_col()
    if data.kind == matrices.LIBSVM:
        if width > expected + 1:
            raise ValueError(
                f"Feature size of libsvm inference data {width} is larger than feature size of trained model "
                f"{expected}."
            )
    elif width not in (expected, expected - 1):
        raise ValueError(
            f"Feature size of {data.kind} inference data {width} is not consistent with feature size of trained "
            f"model {expected}."
        )


def _warn_of_unknown_keys(keys: tuple[str, ...], objective: str) -> None:
    known = selection.KEYS.get(objective, ())
    unknown = [key for key in keys if key not in known]
    if unknown:
        logger.warning(
            "SAGEMAKER_INFERENCE_OUTPUT: %s: %s has no such value, so it is NaN; there are %s",
            ", ".join(unknown),
            objective,
            ", ".join(known) or "none",
        )
