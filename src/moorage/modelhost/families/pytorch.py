"""AWS's images for PyTorch: tensors on the device, TorchScript without code.

https://github.com/aws/sagemaker-pytorch-inference-toolkit
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from moorage.modelhost import encoding
from moorage.modelhost.errors import InvocationError, StartupError, require
from moorage.modelhost.families.base import Answer, Family
from moorage.modelhost.settings import Settings


def create(settings: Settings, *, has_code: bool) -> Family:
    return PyTorch(settings)


class PyTorch(Family):
    distributions: ClassVar = ("torch",)

    def load(self, model_dir: Path) -> Any:
        return load(_find(model_dir))

    def check(self, model: Any) -> None:
        if not is_torch(model):
            super().check(model)

    def decode(self, body: bytes | str, content_type: str | None) -> Any:
        """A tensor; of JSON and CSV float32. CSV of one row or one column has one dimension. Where torch is not
        installed, code that needs none gets an array."""
        if not _has_torch():
            return super().decode(body, content_type)
        media = encoding.media_type(content_type)
        data = encoding.decode(body, content_type)
        if media == encoding.NPY:
            return _tensor(data)
        return _float_tensor(data.squeeze() if media == encoding.CSV else data)

    def predict(self, data: Any, model: Any) -> Any:
        return predict(data, model) if is_torch(model) else super().predict(data, model)

    def as_rows(self, data: Any, model: Any) -> Any:
        return data if is_torch(model) else super().as_rows(data, model)

    def encode(self, prediction: Any, accept: str) -> Answer:
        """NPY has float64, as the images write lists of a tensor's numbers."""
        plain = as_plain(prediction)
        if _is_tensor(prediction) and encoding.choose(accept, self.accept) == encoding.NPY:
            plain = plain.tolist()
        return super().encode(plain, accept)


def load(path: Path) -> Any:
    """A TorchScript module, on the device."""
    torch = _torch()
    device = _device(torch)
    try:
        return torch.jit.load(str(path), map_location=device).to(device)
    except RuntimeError as error:
        raise StartupError(
            f"{path.name} cannot be loaded as TorchScript ({' '.join(str(error).split())[:200]}): save the model "
            "with torch.jit.script or torch.jit.trace, or add code/inference.py with a model_fn that loads it.",
            detail=str(error),
        ) from error


def is_torch(model: Any) -> bool:
    """Without importing torch, which a model of another kind does not need."""
    return any(base.__module__.startswith("torch.") for base in type(model).__mro__)


def predict(data: Any, model: Any) -> Any:
    """As the images do: on the device, in evaluation mode, without gradients."""
    import numpy as np

    torch = _torch()
    device = _device(torch)
    with torch.no_grad():
        if isinstance(data, (list, np.ndarray)):
            data = torch.as_tensor(np.asarray(data))
            weights = next((each for each in model.parameters() if each.is_floating_point()), None)
            if weights is not None and (data.is_floating_point() or not _takes_numbers_of_words(model)):
                data = data.to(weights.dtype)
        return model.to(device).eval()(data.to(device) if hasattr(data, "to") else data)


def _takes_numbers_of_words(model: Any) -> bool:
    """Whether whole numbers stay what they are: an embedding looks them up."""
    return any("Embedding" in getattr(each, "original_name", type(each).__name__) for each in model.modules())


def as_plain(prediction: Any) -> Any:
    """A tensor as an array, also within tuples, lists and dicts: what any encoder can write."""
    if isinstance(prediction, dict):
        return {name: as_plain(each) for name, each in prediction.items()}
    if isinstance(prediction, (list, tuple)):
        return [as_plain(each) for each in prediction]
    if _is_tensor(prediction):
        tensor = prediction.detach().cpu()
        return tensor.float().numpy() if str(tensor.dtype) == "torch.bfloat16" else tensor.numpy()
    return prediction


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")


def _torch() -> Any:
    return require("torch", by="This model", package="torch", extra="torch")


@cache
def _has_torch() -> bool:
    return find_spec("torch") is not None


def _device(torch: Any) -> Any:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _find(model_dir: Path) -> Path:
    files = sorted(model_dir.iterdir()) if model_dir.is_dir() else []
    named = [path for path in files if path.suffix in (".pt", ".pth") and not path.name.startswith("._")]
    for path in named:
        if path.name == "model.pt":
            return path
    if len(named) == 1:
        return named[0]
    found = ", ".join(path.name for path in (named or files)[:10]) or "no file"
    raise StartupError(
        f"Exactly one .pth or .pt file is required in {model_dir} ({found}): name the one to serve model.pt, or add "
        "code/inference.py with a model_fn."
    )


def _float_tensor(data: Any) -> Any:
    import numpy as np

    try:
        return _torch().as_tensor(np.asarray(data, dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise _refusal(error) from error


def _tensor(array: Any) -> Any:
    try:
        return _torch().from_numpy(array)
    except TypeError as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> InvocationError:
    return InvocationError(
        400,
        f"The body is no array of numbers ({error}): send one, or give the model an input_fn that reads it.",
    )
