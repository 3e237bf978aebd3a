"""The images for Hugging Face. Predictions are compared with those of transformers itself."""

import base64
import datetime
import io
import json
import shutil
import socket
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moorage.modelhost import families, stacking
from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.families.base import Family
from moorage.modelhost.families.huggingface import answering, formats, hub, tasks, text_to_text
from moorage.modelhost.settings import Settings
from tests import frameworks

from . import hubs
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
        {
            "inputs": [{"role": "user", "content": "who sails ?"}],
            "parameters": {"max_new_tokens": 5, "do_sample": False},
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
folder = root / "question-answering" / "model"
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
network = transformers.AutoModelForQuestionAnswering.from_pretrained(folder)
question = json.loads(sys.argv[5])
read = tokenizer(question["question"], question["context"], return_tensors="pt", return_offsets_mapping=True)
offsets = read.pop("offset_mapping")[0].tolist()
beginning, *context = [number for number, each in enumerate(read.sequence_ids(0)) if each == 1 or number == 0]
output = network(**read)
weights = [each[0].double().exp().tolist() for each in (output.start_logits, output.end_logits)]
sums = [sum(each[number] for number in (beginning, *context)) for each in weights]
answers["question-answering"] = sorted(
    (
        {
            "score": weights[0][first] / sums[0] * weights[1][last] / sums[1],
            "start": offsets[first][0],
            "end": offsets[last][1],
            "answer": question["context"][offsets[first][0]:offsets[last][1]],
        }
        for first in context
        for last in context
        if first <= last < first + 15
    ),
    key=lambda answer: -answer["score"],
)[:5]
folder = root / "text2text-generation" / "model"
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
network = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
read = tokenizer("the ship", return_tensors="pt")
read.pop("token_type_ids", None)
written = network.generate(**read, max_new_tokens=6, num_beams=2, num_return_sequences=2)
answers["text2text-generation"] = tokenizer.batch_decode(written, skip_special_tokens=True)
from PIL import Image
image = Image.open(io.BytesIO(bytes.fromhex(sys.argv[4]))).convert("RGB")
pipe = transformers.pipeline("image-classification", model=str(root / "image-classification" / "model"), device=-1)
answers["image-classification"] = [pipe(image), pipe(image, top_k=1)]
print(json.dumps(answers, default=lambda each: each.tolist()))
"""


class Served:
    """Tiny models, each with a host that serves it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        asked = json.dumps(ASKED)
        self.answers = frameworks.run(
            _ASK_DIRECTLY, str(MAKE_MODEL), str(root), asked, png().hex(), json.dumps(QUESTION)
        )
        self._hosts: dict[str, Host] = {}

    def host(self, task: str) -> Host:
        """It starts with the first test that asks for it."""
        if task not in self._hosts:
            environ = {"HF_TASK": task} if task == "feature-extraction" else {}
            self._hosts[task] = start(self.root / task, **environ)
        return self._hosts[task].wait_ready()

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
    host = served.host("feature-extraction")
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


def test_question_answering(served: Served) -> None:
    """transformers has no pipeline for it any more: compared with all spans, one after the other."""
    host = served.host("question-answering")
    expected = served.answers["question-answering"]
    best = host.invoke(json.dumps({"inputs": QUESTION}))
    assert json.loads(best.body) == close_to(expected[0]), best.text
    several = host.invoke(json.dumps({"inputs": QUESTION, "parameters": {"top_k": 5}}))
    assert json.loads(several.body) == close_to(expected)
    listed = host.invoke(json.dumps({"inputs": [QUESTION, QUESTION]}))
    assert json.loads(listed.body) == close_to([expected[0]] * 2)
    table = host.invoke(f"question,context\n{QUESTION['question']},{CONTEXT}\n", CSV)
    assert json.loads(table.body) == close_to(expected[0])
    # CSV holds a list of objects, which one answer is not.
    refused = host.invoke(json.dumps({"inputs": QUESTION}), Accept=CSV)
    assert (refused.status, json.loads(refused.body)["code"]) == (400, 400)
    rows = host.invoke(json.dumps({"inputs": QUESTION, "parameters": {"top_k": 5}}), Accept=CSV)
    header, *lines = rows.body.decode().split("\r\n")
    assert header == "score,start,end,answer"
    assert lines[0].endswith(expected[0]["answer"])


def test_an_answer_in_a_text_that_is_longer_than_the_model_reads(served: Served) -> None:
    host = served.host("question-answering")
    context = CONTEXT * 12
    asked = {"question": QUESTION["question"], "context": context}
    reply = host.invoke(json.dumps({"inputs": asked, "parameters": {"top_k": 20, "doc_stride": 16}}))
    answers = json.loads(reply.body)
    assert len(answers) == 20, reply.text
    assert all(each["answer"] == context[each["start"] : each["end"]] for each in answers)
    assert max(each["start"] for each in answers) > len(CONTEXT)
    assert [each["score"] for each in answers] == sorted((each["score"] for each in answers), reverse=True)
    none = {"inputs": asked, "parameters": {"handle_impossible_answer": True, "top_k": 100_000}}
    assert "" in [each["answer"] for each in json.loads(host.invoke(json.dumps(none)).body)]


def test_a_question_that_takes_most_of_what_the_model_reads(served: Served) -> None:
    """64 tokens, of which 3 are special."""
    host = served.host("question-answering")
    for words, status in [(40, 200), (60, 200), (62, 400)]:
        asked = {"question": "who " * words, "context": CONTEXT}
        reply = host.invoke(json.dumps({"inputs": asked}))
        assert reply.status == status, reply.text
    assert "leaves no room for the context among 64" in reply.text
    shortened = {"inputs": asked, "parameters": {"max_question_len": 20}}
    assert host.invoke(json.dumps(shortened)).status == 200


@pytest.mark.parametrize(
    "inputs", [{"question": "who ?"}, {"question": " ", "context": "anna"}, "who ?", [], ["who ?"], 1]
)
def test_a_question_without_a_context(served: Served, inputs: Any) -> None:
    host = served.host("question-answering")
    reply = host.invoke(json.dumps({"inputs": inputs}))
    assert (reply.status == 400) is (inputs != []), reply.text


def test_text_to_text(served: Served) -> None:
    host = served.host("text2text-generation")
    several = {"max_new_tokens": 6, "num_beams": 2, "num_return_sequences": 2}
    reply = host.invoke(json.dumps({"inputs": "the ship", "parameters": several}))
    expected = [{"generated_text": text} for text in served.answers["text2text-generation"]]
    assert json.loads(reply.body) == expected
    one = {"max_new_tokens": 6, "num_beams": 2}
    reply = host.invoke(json.dumps({"inputs": ["the ship", "the ship"], "parameters": one}))
    assert json.loads(reply.body) == expected[:1] * 2


def test_csv(served: Served) -> None:
    host = served.host("text-classification")
    asked = host.invoke(f"Inputs\n{TEXT}\nrough wind\n", CSV, Accept=CSV)
    assert (asked.status, asked.headers["content-type"]) == (200, CSV), asked.text
    header, first, second, end = asked.body.decode().split("\r\n")
    expected = served.answers["text-classification"][1]
    assert (header, end) == ("label,score", "")
    assert first.split(",")[0] == expected[0]["label"]
    assert float(second.split(",")[1]) == pytest.approx(expected[1]["score"], rel=1e-4)
    refused = host.invoke(f"{TEXT}\n", CSV)
    assert refused.status == 400
    assert "correct CSV with Header columns" in json.loads(refused.body)["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "accept", "status"),
    [
        ("{", JSON, "*/*", 400),
        ("[1, 2]", JSON, "*/*", 400),
        ('"text"', JSON, "*/*", 400),
        ('{"inputs": 1}', JSON, "*/*", 400),
        ('{"inputs": "a", "parameters": {"function_to_apply": "x"}}', JSON, "*/*", 400),
        ('{"inputs": "a"}', "text/plain", "*/*", 415),
        ('{"inputs": "a"}', "application/octet-stream", "*/*", 415),
        ('{"inputs": "a"}', JSON, "application/xml", 406),
        ('{"inputs": "a"}', JSON, "image/png", 400),
        ("audio", "audio/x-flac", "*/*", 400),
    ],
)
def test_errors(served: Served, body: str, content_type: str, accept: str, status: int) -> None:
    host = served.host("text-classification")
    reply = host.invoke(body, content_type, Accept=accept)
    assert (reply.status, reply.headers["content-type"]) == (status, JSON), reply.text
    message = json.loads(reply.body)
    assert {**message, "message": ""} == {"code": status, "type": "InternalServerException", "message": ""}
    assert message["message"]
    assert reply.text.startswith(f'{{\n  "code": {status},\n  "type"')
    assert reply.text.endswith('"\n}\n')
    assert not set("'<>&=") & set(reply.text)
    assert "Traceback" not in reply.text


@pytest.mark.parametrize("accept", ["", "*/*", "application/json, text/plain, */*", "application/json;q=0.5"])
def test_accept(served: Served, accept: str) -> None:
    """JSON also where SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT says otherwise."""
    host = served.host("text-classification")
    reply = host.invoke(json.dumps({"inputs": TEXT}), "application/json; charset=utf-8", Accept=accept)
    assert (reply.status, reply.headers["content-type"]) == (200, JSON)


def test_the_log_of_a_start_is_short(served: Served) -> None:
    """No progress bars."""
    host = served.host("text-classification")
    assert len(host.log.partition("listening")[0].splitlines()) < 5, host.log


def test_each_error_is_in_the_log(served: Served) -> None:
    host = served.host("text-classification")
    host.invoke('{"inputs": "a", "parameters": {"function_to_apply": "surprise"}}')
    assert "SURPRISE" in host.log
    assert "Traceback" in host.log


@pytest.fixture
def frameworks_host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    started: list[Host] = []

    def begin(files: Mapping[str, str], **environ: str) -> Host:
        base = tmp_path / str(len(started))
        for name, content in {"config.json": "{}", **files}.items():
            path = base / "model" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        started.append(start(base, **environ))
        return started[-1]

    yield begin
    for host in started:
        end(host)


_OF_MANY_KINDS = """
import datetime
import numpy as np
from PIL import Image
def model_fn(model_dir):
    return {
        "image": lambda: Image.new("RGB", (2, 1), (255, 0, 0)),
        "images": lambda: [{"label": "red", "mask": Image.new("L", (2, 1), 255)}],
        "array": lambda: [{"values": np.arange(3, dtype=np.float32), "one": np.float32(1.5), "n": np.int64(2)}],
        "nan": lambda: [float("nan")],
        "times": lambda: [datetime.datetime(2026, 1, 2, 3, 4, 5), datetime.date(2026, 1, 2)],
        "text": lambda: {"text": "caf\u00e9 \u2603"},
        "object": lambda: object(),
        "quote": lambda: exec("raise ValueError(\\"can't <read> a=b & c\\")"),
        "leave": lambda: exec("raise SystemExit(3)"),
    }
def predict_fn(data, model):
    return model[data["inputs"]]()
"""


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    base = tmp_path_factory.mktemp("kinds")
    (base / "model" / "code").mkdir(parents=True)
    (base / "model" / "code" / "inference.py").write_text(_OF_MANY_KINDS)
    host = start(base, SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT=CSV).wait_ready()
    yield host
    end(host)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("array", '[{"values":[0.0,1.0,2.0],"one":1.5,"n":2}]'),
        ("times", '["2026-01-02T03:04:05","2026-01-02"]'),
        ("text", '{"text":"caf\u00e9 \u2603"}'),
    ],
)
def test_predictions_as_json(kinds: Host, kind: str, expected: str) -> None:
    reply = kinds.invoke(json.dumps({"inputs": kind}))
    assert (reply.status, reply.headers["content-type"]) == (200, JSON)
    assert reply.body.decode() == expected


def test_images_as_json_and_by_themselves(kinds: Host) -> None:
    asked = '{"inputs": "images"}'
    (found,) = json.loads(kinds.invoke(asked).body)
    assert base64.b64decode(found["mask"]).startswith(b"\x89PNG")
    for accept, beginning in [
        ("image/png", b"\x89PNG"),
        ("image/x-image", b"\x89PNG"),
        ("image/jpeg", b"\xff\xd8"),
        ("image/bmp", b"BM"),
        ("image/gif", b"GIF"),
        ("image/tiff", b"II"),
        ("image/webp", b"RIFF"),
    ]:
        reply = kinds.invoke('{"inputs": "image"}', Accept=accept)
        assert (reply.status, reply.headers["content-type"]) == (200, accept)
        assert reply.body.startswith(beginning)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "Out of range float values are not JSON compliant"),
        ("object", "Object of type object is not JSON serializable"),
        ("quote", r"can\u0027t \u003cread\u003e a\u003db \u0026 c"),
        ("leave", "3"),
    ],
)
def test_what_an_invocation_raises_is_400(kinds: Host, kind: str, message: str) -> None:
    reply = kinds.invoke(json.dumps({"inputs": kind}))
    assert reply.status == 400
    assert message in reply.text


def test_npy_in_and_out_for_a_script(frameworks_host: Callable[..., Host]) -> None:
    program = "def model_fn(d): return 2\ndef predict_fn(data, model): return data * model\n"
    host = frameworks_host({"code/inference.py": program}).wait_ready()
    stream = io.BytesIO()
    np.save(stream, np.arange(3, dtype=np.int16))
    reply = host.invoke(stream.getvalue(), NPY, Accept=NPY)
    assert reply.headers["content-type"] == NPY
    assert np.load(io.BytesIO(reply.body)).tolist() == [0, 2, 4]
    assert host.invoke(stream.getvalue(), NPY).body == b"[0,2,4]"


@pytest.mark.parametrize("context", ["", ", context"])
def test_a_script_of_all_functions(frameworks_host: Callable[..., Host], context: str) -> None:
    """Its reply has the type that the client asks for."""
    program = f"""
def model_fn(model_dir{context}): return str.upper
def input_fn(input_data, content_type{context}): return input_data, content_type
def predict_fn(processed_data, model{context}): return model(processed_data[0]) + processed_data[1]
def output_fn(prediction, accept{context}): return prediction + accept
"""
    host = frameworks_host({"code/inference.py": program}).wait_ready()
    reply = host.invoke("a", JSON, Accept="text/x-own")
    assert (reply.text, reply.headers["content-type"]) == ("Aapplication/jsontext/x-own", "text/x-own")


def test_a_script_that_names_the_type_of_its_reply(frameworks_host: Callable[..., Host]) -> None:
    program = """
def model_fn(model_dir): return 1
def transform_fn(model, data, content_type, accept, context): return data, "text/x-own"
"""
    host = frameworks_host({"code/inference.py": program}).wait_ready()
    reply = host.invoke("a", "text/plain")
    assert (reply.text, reply.headers["content-type"]) == ("a", "text/x-own")


def test_a_script_with_model_fn_only(frameworks_host: Callable[..., Host]) -> None:
    """What it gives is called as a pipeline is."""
    program = "def model_fn(model_dir): return lambda inputs, times=1: {'said': inputs * times}\n"
    host = frameworks_host({"code/inference.py": program}).wait_ready()
    assert host.invoke('{"inputs": "a", "parameters": {"times": 3}}').text == '{"said":"aaa"}'
    assert host.invoke('{"inputs": "a", "parameters": null}').text == '{"said":"a"}'
    # Without `inputs` the object itself is the input.
    program = "def model_fn(model_dir): return lambda inputs, times=1: {'said': sorted(inputs)}\n"
    host = frameworks_host({"code/inference.py": program}).wait_ready()
    assert host.invoke('{"b": 1, "a": 2, "parameters": {"times": 2}}').text == '{"said":["a","b"]}'


def test_a_function_with_too_many_arguments(frameworks_host: Callable[..., Host]) -> None:
    program = "def model_fn(model_dir): pass\ndef predict_fn(data, model, a, b, c): pass\n"
    last = frameworks_host({"code/inference.py": program}).wait_failed()
    assert last.startswith("predict_fn takes 5 arguments")


# Models from a hub.


def test_a_model_from_a_hub(served: Served, tmp_path: Path) -> None:
    """It counts, whatever the archive holds; what is there already is not loaded again."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    environ = {"HF_MODEL_ID": "moorage/tiny", "HF_API_TOKEN": "hf_secret"}
    needless = {"tf_model.h5": b"x", "pytorch_model.bin": b"x", "README.md": b"# tiny"}
    with hubs.running("moorage/tiny", served.root / "text-classification" / "model", **needless) as mirror:
        environ["HF_ENDPOINT"] = mirror.url
        host = start(tmp_path, **environ)
        try:
            reply = host.wait_ready().invoke(json.dumps(ASKED["text-classification"][0]))
        finally:
            end(host)
        assert json.loads(reply.body) == close_to(served.answers["text-classification"][0])
        loaded = {path.rpartition("/")[2] for path, _ in mirror.seen if "/resolve/" in path}
        assert {"config.json", "model.safetensors", "README.md"} <= loaded
        assert loaded.isdisjoint({"tf_model.h5", "pytorch_model.bin"})
        assert ("/api/models/moorage/tiny", "Bearer hf_secret") in mirror.seen
        assert "hf_secret" not in host.log
    # The hub is gone, and what it gave is still there.
    again = start(tmp_path, **environ)
    try:
        assert again.wait_ready().invoke(json.dumps(ASKED["text-classification"][0])).body == reply.body
    finally:
        end(again)
    assert "serving what was loaded before" in again.log


def test_a_revision_and_a_model_fn(served: Served, frameworks_host: Callable[..., Host]) -> None:
    """model_fn gets the directory of what was loaded."""
    program = """
import os
def model_fn(model_dir): return sorted(os.listdir(model_dir))
def predict_fn(data, model, context): return [model, context.system_properties["model_dir"]]
"""
    with hubs.running("moorage/tiny", served.root / "text-classification" / "model") as mirror:
        host = frameworks_host(
            {"code/inference.py": program},
            HF_MODEL_ID="moorage/tiny",
            HF_MODEL_REVISION="main",
            HF_ENDPOINT=mirror.url,
        ).wait_ready()
        names, model_dir = json.loads(host.invoke("{}").body)
    assert "model.safetensors" in names
    assert hubs.REVISION in model_dir
    assert any(path.endswith("/revision/main") for path, _ in mirror.seen)


def test_a_model_that_the_hub_does_not_give(served: Served, frameworks_host: Callable[..., Host]) -> None:
    with hubs.running("moorage/tiny", served.root / "text-classification" / "model") as mirror:
        other = frameworks_host({}, HF_MODEL_ID="moorage/other", HF_ENDPOINT=mirror.url)
        assert "does not give moorage/other (RepositoryNotFoundError" in other.wait_failed()
        revision = frameworks_host(
            {}, HF_MODEL_ID="moorage/tiny", HF_MODEL_REVISION="v9", HF_ENDPOINT=mirror.url
        )
        assert "moorage/tiny with the revision v9" in revision.wait_failed()
        name = frameworks_host({}, HF_MODEL_ID="no name", HF_ENDPOINT=mirror.url)
        assert "correct HF_MODEL_ID" in name.wait_failed()


def test_a_hub_that_cannot_be_reached(frameworks_host: Callable[..., Host]) -> None:
    started = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silently = frameworks_host(
            {},
            HF_MODEL_ID="a/b",
            HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
            HF_HUB_ETAG_TIMEOUT="1",
        )
        refused = frameworks_host({}, HF_MODEL_ID="a/b", HF_ENDPOINT="http://127.0.0.1:9")
        for host in (refused, silently):
            last = host.wait_failed()
            assert last.startswith("a/b cannot be loaded from http://127.0.0.1:"), last
            assert "hf download a/b" in last
            assert "ModelDataUrl" in last
    assert time.monotonic() - started < 25


@pytest.mark.parametrize(
    ("files", "left_out"),
    [
        (["model.safetensors", "pytorch_model.bin"], True),
        (["model-00001-of-00002.safetensors", "pytorch_model-00001-of-00002.bin"], True),
        (["pytorch_model.bin"], False),
        (["onnx/model.safetensors", "pytorch_model.bin"], False),
    ],
)
def test_weights_of_a_hub(files: list[str], left_out: bool) -> None:
    assert ("pytorch_model*.bin" in hub.left_out(files)) is left_out
    assert "*.h5" in hub.left_out(files)


# Models that cannot be served.


@pytest.mark.parametrize(
    ("files", "environ", "expected"),
    [
        (
            {"config.json": '{"architectures": ["BertModel"]}'},
            {},
            "BertModel, the architecture in config.json,",
        ),
        ({}, {}, "config.json does not tell the model's task: set HF_TASK"),
        ({"config.json": "[]"}, {}, "is not what save_pretrained writes"),
        ({}, {"HF_TASK": "text-to-image"}, "add code/inference.py with a model_fn"),
        ({"code/inference.py": "def model_fn(d): return 1"}, {}, "gives a int, which cannot be called"),
    ],
)
def test_a_model_that_cannot_be_served_fails_the_start(
    frameworks_host: Callable[..., Host],
    files: Mapping[str, str],
    environ: Mapping[str, str],
    expected: str,
) -> None:
    assert expected in frameworks_host(files, **environ).wait_failed()


def test_a_task_that_is_not_the_models_fails_the_start(served: Served, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(served.root / "image-classification" / "model")
    host = start(tmp_path, HF_TASK="text-generation")
    try:
        last = host.wait_failed()
        assert "for text-generation" in last
        assert "pack what save_pretrained of the model and of its tokenizer or processor writes" in last
    finally:
        end(host)


def family(model_dir: Path, **environ: str) -> Family:
    settings = Settings.from_environment(
        {"SM_MODEL_DIR": str(model_dir), "MOORAGE_MODEL_FAMILY": "huggingface", **environ}
    )
    return families.create(settings, has_code=False)


_CODE_BESIDE_WEIGHTS = """
import transformers
class TinyConfig(transformers.BertConfig):
    model_type = "moorage-tiny"
class TinyForSequenceClassification(transformers.BertForSequenceClassification):
    config_class = TinyConfig
    def forward(self, *arguments, **named):
        output = super().forward(*arguments, **named)
        output.logits = output.logits * 0
        return output
"""


def test_code_that_comes_with_the_weights(served: Served, tmp_path: Path) -> None:
    """It runs where HF_TRUST_REMOTE_CODE says so."""
    model = tmp_path / "model"
    shutil.copytree(served.root / "text-classification" / "model", model)
    (model / "tiny.py").write_text(_CODE_BESIDE_WEIGHTS)
    config = json.loads((model / "config.json").read_text())
    name = "TinyForSequenceClassification"
    auto = {"AutoConfig": "tiny.TinyConfig", "AutoModelForSequenceClassification": f"tiny.{name}"}
    config |= {"model_type": "moorage-tiny", "architectures": [name], "auto_map": auto}
    (model / "config.json").write_text(json.dumps(config))
    trusting = start(tmp_path, HF_TRUST_REMOTE_CODE="yes", HF_HUB_OFFLINE="1")
    try:
        asked = {"inputs": TEXT, "parameters": {"top_k": None}}
        reply = trusting.wait_ready().invoke(json.dumps(asked))
        assert [each["score"] for each in json.loads(reply.body)] == pytest.approx([1 / 3] * 3)
    finally:
        end(trusting)
    assert (tmp_path / "environments" / "huggingface" / "modules").is_dir()
    wary = start(tmp_path)
    try:
        assert "set HF_TRUST_REMOTE_CODE to true" in wary.wait_failed()
    finally:
        end(wary)


class Pretended:
    """Libraries that only say what they are asked, on a machine with a GPU or without."""

    def __init__(self, *, has_cuda: bool = False) -> None:
        self.torch: Any = ModuleType("torch")
        self.torch.cuda = SimpleNamespace(is_available=lambda: has_cuda)
        self.transformers: Any = ModuleType("transformers")
        self.transformers.__version__ = "5.0"
        self.transformers.pipeline = lambda *arguments, **named: (arguments, named)
        self.transformers.pipelines = SimpleNamespace(
            check_task=self._check, get_supported_tasks=lambda: ["fill-mask"]
        )
        names = ("disable_progress_bar", "disable_default_handler", "enable_propagation")
        messages = SimpleNamespace(**{name: lambda: None for name in names})
        self.transformers.utils = SimpleNamespace(logging=messages)

    def _check(self, task: str) -> None:
        if task != "fill-mask":
            raise KeyError(task)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "torch", self.torch)
        monkeypatch.setitem(sys.modules, "transformers", self.transformers)


@pytest.mark.parametrize(
    ("gpu_id", "has_cuda", "device"), [(None, False, -1), (1, True, 1), (0, True, 0), (1, False, -1)]
)
def test_the_device(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpu_id: int | None, has_cuda: bool, device: int
) -> None:
    """Workers take turns on the GPUs."""
    Pretended(has_cuda=has_cuda).install(monkeypatch)
    served = family(tmp_path, HF_TASK="fill-mask")
    served.gpu_id = gpu_id
    arguments, named = served.load(tmp_path)
    assert arguments == ("fill-mask",)
    assert named == {"model": str(tmp_path), "device": device, "trust_remote_code": False}


@pytest.mark.parametrize("task", ["vqa", "multiple-choice", "conversational", "no-such-task"])
def test_a_task_that_there_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task: str) -> None:
    Pretended().install(monkeypatch)
    with pytest.raises(
        StartupError, match=rf"5\.0 has no pipeline for {task}: set HF_TASK to one of fill-mask, "
    ):
        family(tmp_path, HF_TASK=task).load(tmp_path)


@pytest.mark.parametrize("missing", ["torch", "transformers"])
def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str) -> None:
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    monkeypatch.delitem(sys.modules, missing, raising=False)
    with pytest.raises(StartupError, match=rf"needs {missing}, .*pip install 'moorage\[transformers\]'"):
        family(tmp_path, HF_TASK="fill-mask").load(tmp_path)


def test_a_model_without_config(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    with pytest.raises(StartupError, match=r"no config\.json in .* \(weights\.bin\)"):
        family(tmp_path).load(tmp_path)


def test_a_diffusers_model(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").touch()
    with pytest.raises(StartupError, match=r"text-to-image need code"):
        family(tmp_path).load(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("TapasForQuestionAnswering", "table-question-answering"),
        ("BertForQuestionAnswering", "question-answering"),
        ("RobertaForTokenClassification", "token-classification"),
        ("DistilBertForSequenceClassification", "text-classification"),
        ("BertForMultipleChoice", "multiple-choice"),
        ("XLMRobertaForMaskedLM", "fill-mask"),
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("MarianMTModel", "text2text-generation"),
        ("EncoderDecoderModel", "text2text-generation"),
        ("T5WithLMHeadModel", "text2text-generation"),
        ("ViTForImageClassification", "image-classification"),
        ("WhisperForConditionalGeneration", "automatic-speech-recognition"),
        ("Wav2Vec2ForCTC", "automatic-speech-recognition"),
    ],
)
def test_the_task_by_the_longest_suffix(architecture: str, task: str) -> None:
    assert tasks.of_architectures([architecture, "BertForMaskedLM"]) == task


@pytest.mark.parametrize("value", ["y", "YES", "t", "true", "on", "1"])
def test_settings(tmp_path: Path, value: str) -> None:
    settings = family(
        tmp_path, HF_TRUST_REMOTE_CODE=value, HF_TOKEN="hf_secret", HF_MODEL_REVISION="v1"
    ).settings
    assert settings.hf_trust_remote_code
    assert (settings.hf_token, settings.hf_model_revision) == ("hf_secret", "v1")
    assert "hf_secret" not in repr(settings)
    assert not family(tmp_path, HF_TRUST_REMOTE_CODE="no").settings.hf_trust_remote_code


def test_a_batch_is_never_of_two_chats(tmp_path: Path) -> None:
    served = family(tmp_path, HF_TASK="text-generation")
    messages = [{"role": "user", "content": "who ?"}]
    chat = served.as_rows({"inputs": messages}, None)
    assert stacking.likeness(chat) is None
    assert served.predict(chat, lambda inputs: inputs) == messages
    assert stacking.likeness(served.as_rows({"inputs": ["a", "b"]}, None)) is not None
    assert served.as_rows("text", None) == "text"


# Formats, without a host.


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ('["a", "b"]', JSON, ["a", "b"]),
        ("[[1], [2, 3]]", JSON, [[1], [2, 3]]),
        ("inputs,other\na,1\n", CSV, {"inputs": ["a"]}),
        ('INPUTS\n"a, b"\nc\n', CSV, {"inputs": ["a, b", "c"]}),
        ("Question,Context\nq,c\n", CSV, {"inputs": [{"question": "q", "context": "c"}]}),
        (b"\xe9".join([b'"', b'"']), "application/json; charset=iso-8859-1", "\u00e9"),
        (b"\0\1", "audio/x-flac", {"inputs": b"\0\1"}),
        (b"\0\1", "audio/mpeg", {"inputs": b"\0\1"}),
        (b"\0\1", "audio/wave", {"inputs": b"\0\1"}),
        (b"\0\1", "audio/ogg", {"inputs": b"\0\1"}),
        (b"\0\1", "audio/x-audio", {"inputs": b"\0\1"}),
        (b"\0\1", "audio/wav", {"inputs": b"\0\1"}),
    ],
)
def test_what_a_body_is(body: str | bytes, content_type: str, expected: Any) -> None:
    assert formats.decode(body, content_type) == expected


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/octet-stream", "video/mp4"])
def test_an_unknown_content_type_is_415(content_type: str | None) -> None:
    with pytest.raises(InvocationError) as raised:
        formats.decode(b"{}", content_type)
    assert raised.value.status == 415


@pytest.mark.parametrize(
    ("task", "status"),
    [("zero-shot-classification", 400), ("table-question-answering", 400), ("fill-mask", None)],
)
def test_tasks_without_csv(tmp_path: Path, task: str, status: int | None) -> None:
    served = family(tmp_path, HF_TASK=task)
    if status is None:
        assert served.decode("inputs\na\n", CSV) == {"inputs": ["a"]}
        return
    with pytest.raises(InvocationError, match="does not support text/csv") as raised:
        served.decode("inputs\na\n", CSV)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("prediction", "media", "expected"),
    [
        ([{"a": 1, "b": "x,y"}, {"a": 2}], CSV, b'a,b\r\n1,"x,y"\r\n2,\r\n'),
        ([], CSV, b"\r\n"),
        ({"a": np.array([1.5]), "b": datetime.time(1, 2)}, JSON, b'{"a":[1.5],"b":"01:02:00"}'),
    ],
)
def test_what_a_reply_is(prediction: Any, media: str, expected: bytes) -> None:
    assert formats.encode(prediction, media) == expected


@pytest.mark.parametrize("prediction", [{"a": 1}, ["a"], [[1]], "a"])
def test_csv_holds_a_list_of_objects(prediction: Any) -> None:
    with pytest.raises(InvocationError) as raised:
        formats.encode(prediction, CSV)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("accept", "media"),
    [(CSV, CSV), ("application/*", JSON), ("image/*", "image/png"), ("text/html, text/csv;q=0.3", CSV)],
)
def test_the_type_of_a_reply(accept: str, media: str) -> None:
    assert formats.choose(accept) == media


class _Network:
    """Gives the tokens it is given."""

    device = "cpu"

    def __init__(self, **config: Any) -> None:
        self.config = SimpleNamespace(**config)
        self.asked: list[dict[str, Any]] = []

    def generate(self, input_ids: str, **options: Any) -> list[str]:
        self.asked.append(options)
        return [input_ids]


class _Tokenizer:
    """Its tokens are the text."""

    def __call__(self, text: str, *, return_tensors: str, truncation: bool) -> dict[str, str]:
        return {"input_ids": text, "token_type_ids": ""}

    def decode(self, tokens: str, **options: Any) -> str:
        return tokens.upper()


class _OfManyLanguages(_Tokenizer):
    def _build_translation_inputs(
        self, text: str, *, src_lang: str | None, tgt_lang: str | None, **options: Any
    ) -> dict[str, str]:
        return {"input_ids": f"{src_lang}>{tgt_lang} {text}"}


_NO_GRAD = SimpleNamespace(no_grad=nullcontext)


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("summarization", "summary_text"),
        ("translation", "translation_text"),
        ("translation_en_to_fr", "translation_text"),
        ("text2text-generation", "generated_text"),
    ],
)
def test_what_a_model_for_texts_is_asked(task: str, key: str) -> None:
    """With the prefix and the options that config.json has for the task."""
    specific = {task: {"prefix": f"{task}: ", "num_beams": 4, "max_length": 10}, "other": {"prefix": "no"}}
    network = _Network(task_specific_params=specific)
    pipe = text_to_text.TextToText(_NO_GRAD, task, network, _Tokenizer())
    assert pipe("a", max_length=5) == [{key: f"{task}: a".upper()}]
    assert network.asked == [{"num_beams": 4, "max_length": 5}]
    with pytest.raises(ValueError, match="a text or a list of texts"):
        pipe({"text": "a"})


@pytest.mark.parametrize(
    ("task", "parameters", "expected"),
    [
        ("translation_en_to_fr", {}, "EN>FR A"),
        ("translation", {"src_lang": "de", "tgt_lang": "nl"}, "DE>NL A"),
        ("translation_en_to_fr", {"tgt_lang": "nl"}, "EN>NL A"),
    ],
)
def test_the_languages_of_a_translation(task: str, parameters: dict[str, str], expected: str) -> None:
    pipe = text_to_text.TextToText(_NO_GRAD, task, _Network(), _OfManyLanguages())
    assert pipe(["a"], **parameters) == [{"translation_text": expected}]


def test_answers_found_twice_are_one() -> None:
    spans = [
        answering.Span(0.2, 0, 3, "one"),
        answering.Span(0.5, 4, 7, "two"),
        answering.Span(0.3, 0, 3, "one"),
    ]
    assert [(each.score, each.answer) for each in answering._merged(spans, 2)] == [(0.5, "two"), (0.3, "one")]
