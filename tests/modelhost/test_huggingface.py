"""Hugging Face models without code, and what the images do around them."""

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.modelhost.errors import InvocationError, StartupError
from moorage.modelhost.families.huggingface import HuggingFace, formats, tasks
from moorage.modelhost.settings import Settings
from tests import frameworks

from .hosts import Host, Reply, Starter

MAKE_MODEL = Path(__file__).parents[2] / "examples" / "huggingface" / "make_model.py"
FAMILY = HuggingFace(Settings.from_environment({"MOORAGE_MODEL_FAMILY": "huggingface"}))


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("BertForTokenClassification", "token-classification"),
        ("DistilBertForQuestionAnswering", "question-answering"),
        ("TapasForQuestionAnswering", "table-question-answering"),
        ("RobertaForMaskedLM", "fill-mask"),
        ("LlamaForCausalLM", "text-generation"),
        ("GPT2LMHeadModel", "text-generation"),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("MarianMTModel", "text2text-generation"),
        ("ViTForImageClassification", "image-classification"),
    ],
)
def test_the_task_is_inferred_from_the_architecture(tmp_path: Path, architecture: str, task: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert tasks.infer(tmp_path) == task


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ('{"architectures": ["BertModel"]}', "architecture BertModel in config.json: set HF_TASK"),
        ("{}", "architecture (none)"),
        ("no json", "config.json is no JSON"),
        (None, "There is no config.json in"),
    ],
)
def test_what_cannot_be_inferred_is_told(tmp_path: Path, config: str | None, expected: str) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(StartupError) as caught:
        tasks.infer(tmp_path)
    assert expected in caught.value.sentence


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ('["a", "b"]', "application/json", ["a", "b"]),
        ("[[1], [2, 3]]", "application/json", [[1], [2, 3]]),
        ('{"inputs": "x"}', None, {"inputs": "x"}),
        ("inputs\na\nb\n", "text/csv", {"inputs": ["a", "b"]}),
        ("question,context\nq,c\n", "text/csv", {"inputs": [{"question": "q", "context": "c"}]}),
        (b"\x00\x01", "audio/x-flac", {"inputs": b"\x00\x01"}),
        (b"\x00\x01", "audio/mpeg", {"inputs": b"\x00\x01"}),
        ('{"inputs": "ä"}'.encode("latin-1"), "application/json; charset=latin-1", {"inputs": "ä"}),
    ],
)
def test_requests_are_decoded(body: Any, content_type: str | None, expected: Any) -> None:
    assert FAMILY.decode(body, content_type) == expected


@pytest.mark.parametrize(
    ("body", "content_type", "status", "expected"),
    [
        ("{", "application/json", 400, "not valid application/json"),
        ("a,b\n1,2\n", "text/csv", 400, "You need to provide the correct CSV with Header columns"),
        (b"x", "application/octet-stream", 415, "Content type application/octet-stream is not supported"),
        ("x", "text/plain", 415, "Content type text/plain is not supported"),
    ],
)
def test_what_cannot_be_decoded(body: Any, content_type: str, status: int, expected: str) -> None:
    with pytest.raises(InvocationError) as caught:
        FAMILY.decode(body, content_type)
    assert caught.value.status == status
    assert expected in caught.value.message


class Pipeline:
    """Says what it was called with."""

    def __call__(self, inputs: Any, **parameters: Any) -> Any:
        return [inputs, parameters]


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({"inputs": "x"}, ["x", {}]),
        ({"inputs": "x", "parameters": {"top_k": 2}, "other": 1}, ["x", {"top_k": 2}]),
        ({"question": "q", "context": "c"}, [{"question": "q", "context": "c"}, {}]),
        ({"inputs": ["a", "b"], "parameters": None}, [["a", "b"], {}]),
    ],
)
def test_inputs_and_parameters_go_to_the_pipeline(request_: dict[str, Any], expected: Any) -> None:
    assert FAMILY.predict(request_, Pipeline()) == expected


def test_a_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvocationError, match="send an object such as") as caught:
        FAMILY.predict(["a"], Pipeline())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("prediction", "accept", "expected"),
    [
        ([{"label": "é", "score": 0.5}], "application/json", '[{"label":"é","score":0.5}]'),
        ([{"label": "a", "score": 1}], "text/csv", "label,score\r\na,1\r\n"),
        ({"a": 1}, "*/*", '{"a":1}'),
        ({"a": 1}, "text/html, application/json;q=0.9", '{"a":1}'),
    ],
)
def test_predictions_are_encoded(prediction: Any, accept: str, expected: str) -> None:
    body, _ = FAMILY.encode(prediction, accept)
    assert isinstance(body, bytes)
    assert body.decode() == expected


@pytest.mark.parametrize(
    ("prediction", "accept", "status"),
    [
        (float("nan"), "application/json", 400),
        ({"a": 1}, "text/csv", 400),
        ("x", "text/html", 406),
        ("x", "image/png", 406),
    ],
)
def test_what_cannot_be_encoded(prediction: Any, accept: str, status: int) -> None:
    with pytest.raises(InvocationError) as caught:
        FAMILY.encode(prediction, accept)
    assert caught.value.status == status


def test_errors_are_those_of_the_model_server() -> None:
    reply = FAMILY.explain(ValueError("it's <b>"))
    assert (reply.status, reply.content_type) == (400, "application/json")
    assert reply.body == (
        '{\n  "code": 400,\n  "type": "InternalServerException",\n  "message": "it\\u0027s \\u003cb\\u003e"\n}\n'
    )


def test_images_are_decoded_and_encoded() -> None:
    image = pytest.importorskip("PIL.Image")
    red = image.new("RGB", (2, 2), "red")
    png = formats.encode(red, "image/png")
    decoded = FAMILY.decode(png, "image/png")["inputs"]
    assert decoded.getpixel((0, 0)) == (255, 0, 0)
    assert (
        json.loads(formats.encode({"mask": red}, "application/json"))["mask"]
        == base64.b64encode(png).decode()
    )
    with pytest.raises(InvocationError, match="not valid image/png"):
        FAMILY.decode(b"no image", "image/png")


# Real models, with random weights.

REQUESTS: dict[str, list[dict[str, Any]]] = {
    "text-classification": [
        {"inputs": "boats sail"},
        {"inputs": ["boats", "sink"]},
        {"inputs": "boats", "parameters": {"top_k": 2}},
    ],
    "token-classification": [
        {"inputs": "boats sail"},
        {"inputs": "boats sail", "parameters": {"aggregation_strategy": "simple"}},
    ],
    "fill-mask": [{"inputs": "boats [MASK] far"}],
    "feature-extraction": [{"inputs": "boats"}],
    "text-generation": [{"inputs": "boats", "parameters": {"max_new_tokens": 3, "do_sample": False}}],
}
DIRECTLY = """
import json, sys
import transformers
transformers.utils.logging.set_verbosity_error()
folder, asked = sys.argv[1], json.loads(sys.argv[2])
said = {}
for task, requests in asked.items():
    pipe = transformers.pipeline(task, model=f"{folder}/{task}", tokenizer=f"{folder}/{task}")
    said[task] = [pipe(each["inputs"], **each.get("parameters", {})) for each in requests]
print(json.dumps(said, default=lambda value: value.tolist()))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    made = subprocess.run(
        [frameworks.python(), MAKE_MODEL, folder], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture(scope="module")
def directly(models: Path) -> dict[str, list[Any]]:
    """What the pipelines say when they are called without a server."""
    done = subprocess.run(
        [frameworks.python(), "-c", DIRECTLY, models, json.dumps(REQUESTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.fixture
def serving(hosts: Starter, models: Path) -> Iterator[Any]:
    def serve(task: str, **environ: str) -> Host:
        base = hosts.base()
        (base / "model").rmdir()
        (base / "model").symlink_to(models / task)
        return hosts.start(python=frameworks.python(), MOORAGE_MODEL_FAMILY="huggingface", **environ)

    yield serve


def close(found: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, abs=1e-4))
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(
            close(found[name], expected[name]) for name in expected
        )
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    return bool(found == expected)


@pytest.mark.parametrize("task", REQUESTS)
def test_a_model_without_code_is_a_pipeline(serving: Any, directly: dict[str, Any], task: str) -> None:
    environ = {"HF_TASK": task} if task == "feature-extraction" else {}  # its architecture tells nothing
    host = serving(task, **environ).wait_ready()
    for request, expected in zip(REQUESTS[task], directly[task], strict=True):
        reply: Reply = host.invoke(json.dumps(request))
        assert reply.status == 200, reply.text
        assert reply.headers["content-type"] == "application/json"
        assert close(json.loads(reply.text), expected), (request, reply.text, expected)


def test_questions_are_answered_from_the_context(serving: Any) -> None:
    """transformers 5 has no such pipeline."""
    host = serving("question-answering").wait_ready()
    question = {"question": "where do boats sail", "context": "the boats sail far"}
    answer = json.loads(host.invoke(json.dumps({"inputs": question})).text)
    assert answer["answer"] == question["context"][answer["start"] : answer["end"]] != ""
    assert 0 < answer["score"] <= 1
    assert json.loads(host.invoke(json.dumps(question)).text) == answer
    several = {"inputs": question, "parameters": {"top_k": 3}}
    assert json.loads(host.invoke(json.dumps(several)).text)[0] == answer


@pytest.mark.parametrize(
    ("task", "key"),
    [
        ("", "generated_text"),
        ("summarization", "summary_text"),
        ("translation_en_to_de", "translation_text"),
    ],
)
def test_text_is_made_of_text(serving: Any, task: str, key: str) -> None:
    host = serving("text2text-generation", **({"HF_TASK": task} if task else {})).wait_ready()
    reply = json.loads(host.invoke('{"inputs": "boats", "parameters": {"max_new_tokens": 3}}').text)
    assert [list(each) for each in reply] == [[key]]
    assert len(json.loads(host.invoke('{"inputs": ["boats", "sail far"]}').text)) == 2


def test_an_image_is_classified(serving: Any) -> None:
    host = serving("image-classification").wait_ready()
    png = base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
    labels = json.loads(host.invoke(png, "image/png").text)
    assert [sorted(each) for each in labels] == [["label", "score"]] * 3


def test_an_error_of_the_pipeline_is_told(serving: Any) -> None:
    host = serving("fill-mask").wait_ready()
    reply = host.invoke('{"inputs": "no mask here"}')
    assert reply.status == 400
    assert json.loads(reply.text)["type"] == "InternalServerException"


def test_a_task_that_is_none_is_told(serving: Any) -> None:
    sentence = serving("text-classification", HF_TASK="fly").wait_failed()
    assert "HF_TASK is fly, for which transformers" in sentence


def test_a_hub_that_cannot_be_reached_is_told(serving: Any) -> None:
    sentence = serving(
        "text-classification", HF_MODEL_ID="someone/something", HF_ENDPOINT="http://127.0.0.1:9"
    ).wait_failed()
    assert "HF_MODEL_ID is someone/something, which cannot be downloaded" in sentence
    assert "tar -C model -czf model.tar.gz ." in sentence


def test_own_code_gets_plain_json_and_says_the_type(hosts: Starter) -> None:
    host = hosts.ready(
        """
        def model_fn(model_dir, context=None):
            return type(context).__name__
        def predict_fn(data, model):
            return [data, model]
        """,
        MOORAGE_MODEL_FAMILY="huggingface",
    )
    reply = host.invoke('{"inputs": ["a", ["b"]]}', Accept="application/json")
    assert reply.text == '[{"inputs":["a",["b"]]},"Context"]'
    assert reply.headers["content-type"] == "application/json"
