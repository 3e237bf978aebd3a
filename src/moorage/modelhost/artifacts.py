"""Models that bring no code: which file of the artifact is the model, how to load it, how to ask it."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from moorage.modelhost.errors import InvocationError, StartupError, require

# In order of preference, when an artifact holds several files that could be the model.
_PREFERRED = (
    "model.joblib",
    "model.pkl",
    "model.onnx",
    "model.ubj",
    "model.json",
    "xgboost-model",
    "model.bst",
    "model.pt",
)

_ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip", ".tar.bz2", ".tar.xz", ".tar.zst")

_ONNX_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(string)": "object",
    "tensor(bool)": "bool",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


def load(model_dir: Path) -> Any:
    """The model that `model_dir` holds. StartupError when there is none, or no telling which."""
    path = _find(model_dir)
    loader = _loader(path)
    assert loader is not None, path
    return loader(path)


def predictor(model: Any) -> Callable[[Any], Any] | None:
    """How to ask this model for a prediction, or None when it has no way we know."""
    kind = type(model)
    if kind.__module__.startswith("onnxruntime."):
        return lambda data: _predict_onnx(model, data)
    if kind.__module__.startswith("xgboost.") and kind.__name__ == "Booster":
        return lambda data: _predict_booster(model, data)
    if any(base.__module__.startswith("torch.") for base in kind.__mro__):
        from moorage.modelhost.families import pytorch

        return lambda data: pytorch.as_plain(pytorch.predict(data, model))
    if callable(getattr(model, "predict", None)):
        return lambda data: model.predict(_as_rows(data, features=getattr(model, "n_features_in_", None)))
    return model if callable(model) else None


def _find(model_dir: Path) -> Path:
    files = visible_files(model_dir)
    candidates = {path.name: path for path in files if _loader(path)}
    for name in _PREFERRED:
        if name in candidates:
            return candidates[name]
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    if candidates:
        raise StartupError(
            f"{model_dir} holds several models ({', '.join(candidates)}): name the one to serve model.<extension>, "
            "or add code/inference.py with a model_fn."
        )
    found = f"only {', '.join(path.name for path in files[:10])}" if files else "no file"
    raise StartupError(f"There is nothing to serve in {model_dir} ({found}): {_advice(model_dir, files)}.")


def visible_files(model_dir: Path) -> list[Path]:
    """Those in the root, without hidden ones: macOS's tar adds a `._name` for each."""
    if not model_dir.is_dir():
        return []
    return sorted(path for path in model_dir.iterdir() if path.is_file() and not path.name.startswith("."))


def _advice(model_dir: Path, files: Sequence[Path]) -> str:
    archives = [path.name for path in files if path.name.endswith(_ARCHIVES)]
    if archives:
        return f"{archives[0]} is an archive inside of the archive; upload that one itself as model.tar.gz"
    programs = [path.name for path in files if path.suffix == ".py"]
    if programs:
        named = ", ".join(programs[:5])
        return f"call the file with model_fn inference.py, or name it in SAGEMAKER_PROGRAM ({named})"
    directories = (
        sorted(path.name for path in model_dir.iterdir() if path.is_dir()) if model_dir.is_dir() else []
    )
    if not files and len(directories) == 1 and directories[0] != "code":
        return (
            f"all is in the directory {directories[0]}/; pack what is in it: "
            f"tar -C {directories[0]} -czf model.tar.gz ."
        )
    return (
        "add code/inference.py with a model_fn, or a model saved as *.joblib, *.pkl, *.onnx, *.ubj, *.json "
        "(XGBoost), *.bst or xgboost-model, or as TorchScript in model.pt"
    )


def _loader(path: Path) -> Callable[[Path], Any] | None:
    if path.suffix == ".json":
        # Many artifacts carry a config.json; only a booster begins like this.
        with path.open(errors="replace") as file:
            return _load_booster if re.match(r'\s*{\s*"(learner|version)"\s*:', file.read(100)) else None
    return _LOADERS.get(path.name) or _LOADERS.get(path.suffix)


def _load_pickle(path: Path) -> Any:
    return require("joblib", by=path.name, package="joblib", extra="sklearn").load(path)


def _load_onnx(path: Path) -> Any:
    onnxruntime = require("onnxruntime", by=path.name, package="onnxruntime", extra="onnx")
    return onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())


def _load_booster(path: Path) -> Any:
    xgboost = require("xgboost", by=path.name, package="xgboost", extra="xgboost")
    booster = xgboost.Booster()
    try:
        booster.load_model(str(path))
    except xgboost.core.XGBoostError:
        # SageMaker's own XGBoost training saved `xgboost-model` as a pickle for years.
        if path.read_bytes()[:1] != b"\x80":
            raise
        return _load_pickle(path)
    return booster


def _load_torchscript(path: Path) -> Any:
    from moorage.modelhost.families import pytorch

    return pytorch.load(path)


_LOADERS: dict[str, Callable[[Path], Any]] = {
    ".pt": _load_torchscript,
    ".pth": _load_torchscript,
    ".joblib": _load_pickle,
    ".pkl": _load_pickle,
    ".pickle": _load_pickle,
    ".onnx": _load_onnx,
    ".ubj": _load_booster,
    ".bst": _load_booster,
    "xgboost-model": _load_booster,
}


def as_rows(data: Any, model: Any) -> Any:
    """One row of numbers as a table of one row, for a model that takes tables."""
    features = getattr(model, "n_features_in_", None)
    if getattr(data, "ndim", None) == 1 and features == len(data):
        return data.reshape(1, -1)
    return data


def _as_rows(data: Any, *, features: int | None) -> Any:
    """One row of numbers is taken for a table of one row, when its length says so."""
    if isinstance(data, dict):
        raise InvocationError(
            400, "The model takes a list of rows, such as [[1, 2], [3, 4]], not a JSON object."
        )
    if getattr(data, "ndim", None) == 1 and features == len(data):
        return data.reshape(1, -1)
    return data


def _predict_booster(booster: Any, data: Any) -> Any:
    import xgboost

    rows = _as_rows(data, features=booster.num_features())
    return booster.predict(xgboost.DMatrix(rows, feature_names=booster.feature_names))


def _predict_onnx(session: Any, data: Any) -> Any:
    """The only output, or all of them by name."""
    names = [output.name for output in session.get_outputs()]
    try:
        results = session.run(names, _feed(session, data))
    except Exception as error:
        # Wrong rank or shape; the class lives in a private module that has moved before.
        if type(error).__name__ == "InvalidArgument":
            raise InvocationError(400, f"The model refuses this input: {error}") from error
        raise
    return results[0] if len(names) == 1 else dict(zip(names, results, strict=True))


def _feed(session: Any, data: Any) -> dict[str, Any]:
    import numpy as np

    inputs = {each.name: each for each in session.get_inputs()}
    listed = ", ".join(inputs)
    if not isinstance(data, dict):
        if len(inputs) != 1:
            raise InvocationError(400, f"The model has several inputs: send a JSON object with {listed}.")
        data = {next(iter(inputs)): data}
    if data.keys() != inputs.keys():
        raise InvocationError(
            400, f"The model's inputs are {listed}, but the body has {', '.join(data) or 'none'}."
        )
    feed = {}
    for name, value in data.items():
        try:
            feed[name] = np.asarray(value, dtype=_ONNX_DTYPES.get(inputs[name].type))
        except (ValueError, TypeError) as error:
            raise InvocationError(400, f"The input {name} is not a {inputs[name].type}: {error}.") from error
    return feed
