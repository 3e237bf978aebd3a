"""The images for Hugging Face. Predictions are compared with those of transformers itself."""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from . import frameworks
from .hosts import Host

JSON = "application/json"
CSV = "text/csv"
NPY = "application/x-npy"
MAKE_MODEL = frameworks.ROOT / "examples" / "huggingface" / "make_model.py"

TEXT = "the blue ship rests in a quiet harbour ."
CONTEXT = "captain anna lives in a small town . the old ship sails at night and rests in the morning ."
QUESTION = {"question": "where is anna ?", "context": CONTEXT}


def png(width: int = 32, height: int = 32) -> bytes:
    """Of a gradient, without PIL."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(
        b"\0" + bytes(value for x in range(width) for value in (x * 8 % 256, y * 8 % 256, 90))
        for y in range(height)
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# What each model is asked, as on a host and as a pipeline of transformers itself.
ASKED: dict[str, list[dict[str, Any]]] = {
    "text-classification": [
        {"inputs": TEXT},
        {"inputs": [TEXT, "rough wind"]},
        {"inputs": {"text": TEXT, "text_pair": "a boat"}},
        {"inputs": TEXT, "parameters": {"top_k": None}},
        {"inputs": TEXT, "parameters": None, "options": {"wait_for_model": True}},
    ],
    "token-classification": [
        {"inputs": TEXT},
        {"inputs": TEXT, "parameters": {"aggregation_strategy": "simple"}},
    ],
    "fill-mask": [
        {"inputs": "the [MASK] ship ."},
        {"inputs": "the [MASK] ship .", "parameters": {"top_k": 2}},
    ],
    "feature-extraction": [{"inputs": "a boat"}],
    "text-generation": [
        {"inputs": "the ship", "parameters": {"max_new_tokens": 5, "do_sample": False}},
        {"inputs": ["the ship", "a boat"], "parameters": {"max_new_tokens": 5, "do_sample": False}},
        {
            "inputs": "the ship",
            "parameters": {"max_new_tokens": 5, "do_sample": False, "return_full_text": False},
        },
    ],
}

_ASK_DIRECTLY = """
import importlib.util, io, json, sys
from pathlib import Path
import transformers
transformers.utils.logging.disable_progress_bar()
spec = importlib.util.spec_from_file_location("make_model", sys.argv[1])
make_model = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_model)
root = Path(sys.argv[2])
answers = {}
for task in make_model.MODELS:
    make_model.make(root / task / "model", task)
for task, asked in json.loads(sys.argv[3]).items():
    pipe = transformers.pipeline(task, model=str(root / task / "model"), device=-1)
    answers[task] = [pipe(each["inputs"], **(each.get("parameters") or {})) for each in asked]
from PIL import Image
image = Image.open(io.BytesIO(bytes.fromhex(sys.argv[4]))).convert("RGB")
pipe = transformers.pipeline("image-classification", model=str(root / "image-classification" / "model"), device=-1)
answers["image-classification"] = [pipe(image), pipe(image, top_k=1)]
print(json.dumps(answers, default=lambda each: each.tolist()))
"""


class Served:
    """Tiny models, each with a host that serves it once it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root = root
        asked = json.dumps(ASKED)
        self.answers = frameworks.run(_ASK_DIRECTLY, str(MAKE_MODEL), str(root), asked, png().hex())
        self._hosts: dict[str, Host] = {}

    def host(self, task: str, **environ: str) -> Host:
        if task not in self._hosts:
            host = start(self.root / task, **environ)
            self._hosts[task] = host
            host.wait_ready()
        return self._hosts[task]

    def close(self) -> None:
        for host in self._hosts.values():
            end(host)


def start(base: Path, **environ: str) -> Host:
    chosen = {"MOORAGE_MODEL_FAMILY": "huggingface", "OMP_NUM_THREADS": "1", **environ}
    return Host(base, chosen, python=frameworks.python())


def end(host: Host) -> None:
    if host.process.poll() is None:
        host.process.kill()
    host.process.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    result = Served(tmp_path_factory.mktemp("models"))
    yield result
    result.close()


def close_to(expected: Any) -> Any:
    """Equal, but for the last digits of floats."""
    if isinstance(expected, dict):
        return {name: close_to(each) for name, each in expected.items()}
    if isinstance(expected, list):
        return [close_to(each) for each in expected]
    return pytest.approx(expected, rel=1e-4) if isinstance(expected, float) else expected


@pytest.mark.parametrize("task", [name for name in ASKED if name != "feature-extraction"])
def test_a_model_without_code_answers_as_its_pipeline(served: Served, task: str) -> None:
    """Its config.json tells the task."""
    host = served.host(task)
    for body, expected in zip(ASKED[task], served.answers[task], strict=True):
        reply = host.invoke(json.dumps(body))
        assert (reply.status, reply.headers["content-type"]) == (200, JSON), reply.text
        assert json.loads(reply.body) == close_to(expected), body


def test_hf_task_chooses_the_pipeline(served: Served) -> None:
    host = served.host("feature-extraction", HF_TASK="feature-extraction")
    reply = host.invoke(json.dumps(ASKED["feature-extraction"][0]))
    (expected,) = served.answers["feature-extraction"]
    assert np.allclose(json.loads(reply.body), expected, rtol=1e-4)
    assert np.shape(expected) == (1, 4, 32)


def test_images(served: Served) -> None:
    host = served.host("image-classification")
    whole, _ = served.answers["image-classification"]
    for content_type in ("image/png", "image/x-image", "IMAGE/PNG; charset=binary"):
        reply = host.invoke(png(), content_type)
        assert reply.status == 200, reply.text
        assert json.loads(reply.body) == close_to(whole)
    assert host.invoke(b"not an image", "image/jpeg").status == 400
