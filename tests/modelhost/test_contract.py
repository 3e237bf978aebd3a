"""What code/inference.py may define, gets and returns."""

import json
import os
from pathlib import Path

import pytest

from .hosts import Starter


def test_functions_get_what_the_toolkit_documents(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return {"dir": model_dir}
        def input_fn(body, content_type):
            return [type(body).__name__, content_type]
        def predict_fn(data, model):
            return data + [model["dir"]]
        def output_fn(prediction, accept):
            return "|".join(prediction + [accept])
        """)
    assert host.invoke("[1]").text == f"str|application/json|{host.base}/model|application/json"
    reply = host.invoke("1", "text/csv; header=absent", Accept="text/plain")
    assert reply.text == f"bytes|text/csv; header=absent|{host.base}/model|text/plain"
    assert reply.headers["content-type"] == "text/plain"
    assert host.invoke(b"\xff", "image/png", Accept="*/*").text.startswith("bytes|image/png|")


def test_functions_may_take_the_context(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir, context):
            return context.system_properties["model_dir"]
        def input_fn(body, content_type, context):
            return [context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes")]
        def predict_fn(data, model, context):
            return data + [context.request_processor[0].get_request_properties().get("Content-Type"), model]
        def output_fn(prediction, accept, context):
            context.set_response_content_type(0, "text/special")
            context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes", "back")
            context.set_response_header("X-Amzn-SageMaker-Session-Id", "s1; Expires=2030-01-01T00:00:00Z")
            context.set_response_header("X-Amzn-SageMaker-Closed-Session-Id", "s0")
            context.set_response_header("X-Private", "kept inside")
            context.set_response_status(201)
            return " ".join(prediction)
        """)
    reply = host.invoke("[]", X_Amzn_SageMaker_Custom_Attributes="trace=1")
    assert reply.text == f"trace=1 application/json {host.base}/model"
    assert reply.status == 201
    assert reply.headers["content-type"] == "text/special"
    assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "back"
    assert reply.headers["x-amzn-sagemaker-session-id"] == "s1; Expires=2030-01-01T00:00:00Z"
    assert reply.headers["x-amzn-sagemaker-closed-session-id"] == "s0"
    assert "x-private" not in reply.headers


def test_functions_may_be_async_and_share_one_loop(hosts: Starter) -> None:
    host = hosts.ready("""
        import asyncio
        async def model_fn(model_dir):
            return asyncio.get_running_loop()
        async def predict_fn(data, model):
            await asyncio.sleep(0)
            return model is asyncio.get_running_loop()
        """)
    assert host.invoke("[]").text == "true"
    assert host.invoke("[]").text == "true"


def test_transform_fn_replaces_the_three(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return 10
        def transform_fn(model, body, content_type, accept, context):
            return str(model + int(body)), "text/number"
        """)
    reply = host.invoke("5", "text/csv")
    assert (reply.text, reply.headers["content-type"]) == ("15", "text/number")


def test_what_is_neither_text_nor_bytes_becomes_json(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        def transform_fn(model, body, content_type, accept):
            return {"got": len(body)}
        """)
    reply = host.invoke(b"abc", "application/octet-stream", Accept="application/octet-stream")
    assert (json.loads(reply.body), reply.headers["content-type"]) == ({"got": 3}, "application/json")


def test_defaults_fill_in_what_is_missing(hosts: Starter) -> None:
    host = hosts.ready(
        """
        def model_fn(model_dir):
            return lambda data: data * 2
        """,
        SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT="text/csv",
    )
    assert host.invoke("[[1, 2]]").text == "2,4\n"
    assert host.invoke("1,2", "text/csv", Accept="application/json").text == "[[2.0, 4.0]]"


def test_warmup_and_pre_model_functions_run_once(hosts: Starter) -> None:
    host = hosts.ready("""
        order = []
        def pre_model_fn(model_dir):
            order.append("pre")
        def model_fn(model_dir):
            order.append("model")
            return "m"
        def model_warmup_fn(model_dir, model):
            order.append("warm " + model)
        def predict_fn(data, model):
            return order
        """)
    assert host.invoke("[]").text == '["pre", "model", "warm m"]'


def test_code_and_its_lib_are_importable_and_the_working_directory(hosts: Starter) -> None:
    code = hosts.base() / "model" / "code"
    (code / "lib").mkdir(parents=True)
    (code / "json").mkdir()  # does not hide the standard library from the host, only from user code
    (code / "beside.py").write_text("A = 1")
    (code / "lib" / "below.py").write_text("B = 2")
    (code / "words.txt").write_text("hello")
    host = hosts.ready("""
        import beside, below
        def model_fn(model_dir):
            return open("words.txt").read()
        def predict_fn(data, model):
            return [beside.A, below.B, model]
        """)
    assert host.invoke("[]").text == '[1, 2, "hello"]'


def test_another_program_in_a_folder(hosts: Starter) -> None:
    code = hosts.base() / "model" / "code" / "serving"
    code.mkdir(parents=True)
    (code / "entry.py").write_text("def model_fn(d): return 1\ndef predict_fn(data, model): return __name__")
    host = hosts.ready(SAGEMAKER_PROGRAM="serving/entry.py")
    assert host.invoke("[]").text == '"serving.entry"'


def test_an_exception_is_500_with_the_users_frames(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            return helper(data)
        def helper(data):
            raise RuntimeError("no such colour")
        """)
    reply = host.invoke("[]")
    assert reply.status == 500
    assert reply.headers["content-type"].startswith("text/plain")
    assert reply.text.startswith("RuntimeError: no such colour\n")
    assert "in helper" in reply.text
    assert "modelhost" not in reply.text
    assert "Traceback (most recent call last)" in host.log
    assert host.invoke("[]").status == 500, "the worker has survived"


def test_sys_exit_in_user_code_is_an_error_and_no_exit(hosts: Starter) -> None:
    host = hosts.ready("""
        import sys
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            sys.exit(3)
        """)
    workers = host.workers()
    assert host.invoke("[]").text.startswith("SystemExit: 3")
    assert host.workers() == workers


def test_the_toolkits_own_error_chooses_the_status(hosts: Starter) -> None:
    host = hosts.ready("""
        class BaseInferenceToolkitError(Exception):
            pass
        class TooDark(BaseInferenceToolkitError):
            status_code = 422
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            raise TooDark("too dark")
        """)
    reply = host.invoke("[]")
    assert reply.status == 422
    assert reply.text.startswith("TooDark: too dark")


def test_refusals_are_plain_text(hosts: Starter) -> None:
    host = hosts.ready(
        """
        def model_fn(model_dir):
            return lambda data: data
        """,
        SAGEMAKER_MAX_REQUEST_SIZE=100,
    )
    for reply, status in [
        (host.invoke("{"), 400),
        (host.invoke(b"\xff"), 400),
        (host.invoke("a", "image/png"), 415),
        (host.request("POST", "/invocations", "[]"), 415),
        (host.invoke("[]", Accept="image/png"), 406),
        (host.invoke("[" + " " * 100 + "]"), 413),
        (host.request("GET", "/invocations"), 405),
        (host.request("POST", "/ping"), 405),
        (host.request("GET", "/models"), 404),
    ]:
        assert reply.status == status
        assert reply.headers["content-type"].startswith("text/plain")
        assert reply.text.endswith((".", ".\n"))
    ping = host.ping()
    assert (ping.status, ping.body) == (200, b"")


def test_large_bodies_pass_both_ways(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            return None
        def transform_fn(model, body, content_type, accept):
            return body[::-1], content_type
        """)
    body = bytes(range(251)) * 20_000
    assert host.invoke(body, "application/octet-stream").body == body[::-1]


def test_output_of_user_code_comes_line_by_line(hosts: Starter) -> None:
    host = hosts.ready("""
        import logging, sys
        def model_fn(model_dir):
            print("to stdout")
            print("to stderr", file=sys.stderr)
            logging.getLogger(__name__).info("to the log")
            return None
        def predict_fn(data, model):
            print("no newline", end="")
            return 1
        """)
    assert {"to stdout", "to stderr"} <= set(host.log.splitlines())
    assert "INFO inference: to the log" in host.log
    before = len(host.log.splitlines())
    for _ in range(3):
        host.invoke("[]")
    assert "no newline" * 3 in host.log
    assert len(host.log.splitlines()) == before + 1, "no line per request"


def test_paths_may_be_relative_to_where_the_host_starts(hosts: Starter) -> None:
    base = hosts.base()
    (base / "elsewhere").mkdir()
    (base / "elsewhere" / "inference.py").write_text(
        "import os\ndef model_fn(d): return d\ndef predict_fn(data, model): return [model, os.getcwd()]"
    )
    relative = os.path.relpath(base)
    host = hosts.ready(SAGEMAKER_BASE_DIR=relative, SAGEMAKER_SUBMIT_DIRECTORY=f"{relative}/elsewhere")
    model_dir, working_dir = json.loads(host.invoke("[]").body)
    assert Path(model_dir).is_absolute()
    assert Path(model_dir).samefile(base / "model")
    assert Path(working_dir).samefile(base / "elsewhere")


def test_further_parameters_keep_their_defaults(hosts: Starter) -> None:
    source = """
        def model_fn(model_dir, device="cpu"):
            return device
        def predict_fn(data, model, scale=2, context=None):
            return [model, data * scale]
        def input_fn(body, content_type, context=None):
            return float(body) if context is None else -float(body)
        """
    assert hosts.ready(source).invoke("3").text == '["cpu", -6.0]'
    assert hosts.ready(source, MOORAGE_MODEL_FAMILY="scikit-learn").invoke("3").text == '["cpu", 6.0]'


def test_metrics_and_the_gpu_are_in_the_context(hosts: Starter) -> None:
    host = hosts.ready(
        """
        def model_fn(model_dir, context):
            return context.system_properties["gpu_id"]
        def predict_fn(data, model, context):
            context.metrics.add_counter("Seen", 2)
            context.metrics.add_time("Took", 1.5, unit="ms")
            return [model, context.system_properties["gpu_id"]]
        """,
        CUDA_VISIBLE_DEVICES="0,1",
        SAGEMAKER_MODEL_SERVER_WORKERS=2,
    )
    seen = {host.invoke("1").text for _ in range(8)}
    assert seen <= {"[0, 0]", "[1, 1]"}
    assert "Seen.Count:2" in host.log
    assert "Took.Milliseconds:1.5" in host.log


RESPONSES = """
    from sagemaker_containers.beta.framework.worker import Response
    class Streaming:
        status_code, headers = 200, {"Content-Type": "text/parts", "X-Amzn-SageMaker-Custom-Attributes": "b"}
        body_iterator = iter(["one ", "two"])
    def model_fn(model_dir):
        return None
    def transform_fn(model, body, content_type, accept):
        if body == "stream":
            return Streaming()
        response = Response(body, status=int(body), mimetype="text/own")
        response.headers["X-Amzn-SageMaker-Custom-Attributes"] = "a"
        return response
"""


@pytest.mark.parametrize("extra", [{}, {"MOORAGE_THREADS": 2}])
def test_a_response_object_chooses_status_type_and_headers(hosts: Starter, extra: dict[str, int]) -> None:
    host = hosts.ready(RESPONSES, **extra)
    for status in (200, 201, 422):
        reply = host.invoke(str(status), "text/csv")
        assert (reply.status, reply.text) == (status, str(status))
        assert reply.headers["content-type"].startswith("text/own")
        assert reply.headers["x-amzn-sagemaker-custom-attributes"] == "a"
    stream = host.invoke("stream", "text/csv")
    assert (stream.text, stream.headers["content-type"]) == ("one two", "text/parts")
    assert stream.headers["x-amzn-sagemaker-custom-attributes"] == "b"
