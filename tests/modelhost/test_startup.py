"""Before the port is open, and starts that fail: exit code 1, the traceback, and one sentence at the end."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import moorage

from .hosts import Starter, exists, wait_until


def test_nothing_listens_before_the_model_is_loaded(hosts: Starter) -> None:
    host = hosts.start(
        """
        import os, time
        def model_fn(model_dir):
            (BASE / f"loading-{os.getpid()}").touch()
            while not (BASE / "go").exists():
                time.sleep(0.005)
            return lambda data: data
        """,
        SAGEMAKER_MODEL_SERVER_WORKERS=2,
    )
    wait_until(lambda: len(list(host.base.glob("loading-*"))) == 2, "both workers")
    assert not host.is_open()
    (host.base / "go").touch()
    host.wait_ready()


@pytest.mark.parametrize(
    ("inference", "traceback", "sentence"),
    [
        ("import does_not_exist", "ModuleNotFoundError", "code/requirements.txt"),
        ("this is no Python", "SyntaxError", "correct inference.py"),
        ("def model_fn(d):\n    raise ValueError('no weights')", "in model_fn", "ValueError: no weights"),
        ("import sys\nsys.exit('two\\nlines')", "SystemExit", "SystemExit: two lines"),
        ("import os\nos._exit(7)", "", "ended with exit code 7"),
        ("import os\nos.kill(os.getpid(), 9)", "", "SIGKILL (signal 9), perhaps for lack of memory"),
        ("def predict_fn(data, model): pass", "", "nothing to serve in"),
        ("def model_fn(d): return 3", "", "define predict_fn(data, model) in inference.py"),
        ("def model_fn(d): pass\ndef predict_fn(data): pass", "", "predict_fn takes 1 arguments"),
        (
            "def transform_fn(a, b, c, d): pass\ndef input_fn(b, c): pass",
            "",
            "transform_fn together with input_fn",
        ),
    ],
)
def test_code_that_cannot_be_served(hosts: Starter, inference: str, traceback: str, sentence: str) -> None:
    host = hosts.start("\n" + inference, SAGEMAKER_MODEL_SERVER_WORKERS=2)
    assert sentence in host.wait_failed()
    assert traceback in host.log
    assert "never retrieved" not in host.log


@pytest.mark.parametrize(
    ("files", "environ", "sentence"),
    [
        ({}, {}, "nothing to serve"),
        ({"weights.bin": b"1"}, {}, "only weights.bin"),
        ({"config.json": b"{}"}, {}, "only config.json"),
        ({"a.pkl": b"1", "b.onnx": b"2"}, {}, "several models (a.pkl, b.onnx)"),
        ({"model.pkl": b"no pickle"}, {}, "check the artifact"),
        ({"model.onnx": b"no onnx"}, {}, "check the artifact"),
        ({"model.pkl": b"1"}, {"SAGEMAKER_PROGRAM": "other.py"}, "SAGEMAKER_PROGRAM is other.py"),
        ({}, {"SAGEMAKER_MULTI_MODEL": "true"}, "SAGEMAKER_MULTI_MODEL"),
        ({}, {"SAGEMAKER_SUBMIT_DIRECTORY": "s3://bucket/sourcedir.tar.gz"}, "SAGEMAKER_SUBMIT_DIRECTORY"),
    ],
)
def test_artifacts_that_cannot_be_served(
    hosts: Starter, files: dict[str, bytes], environ: dict[str, str], sentence: str
) -> None:
    for name, content in files.items():
        (hosts.base() / "model" / name).write_bytes(content)
    assert sentence in hosts.start(None, **environ).wait_failed()


def test_an_artifact_whose_library_is_not_installed(hosts: Starter) -> None:
    (hosts.base() / "model" / "model.ubj").write_bytes(b"1")
    code = hosts.base() / "model" / "code"
    code.mkdir()
    # What an import of a package that is not there does.
    (code / "xgboost.py").write_text("raise ModuleNotFoundError('No module named xgboost', name='xgboost')")
    assert "add xgboost to code/requirements.txt" in hosts.start().wait_failed()


def test_a_port_that_is_taken_is_known_before_loading(hosts: Starter) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host = hosts.start("import time\ntime.sleep(60)", SAGEMAKER_BIND_TO_PORT=taken.getsockname()[1])
        assert "free the port" in host.wait_failed()


def test_a_failed_start_leaves_no_worker(hosts: Starter) -> None:
    host = hosts.start(
        """
        import os, time
        (BASE / f"pid-{os.getpid()}").touch()
        while len(list(BASE.glob("pid-*"))) < 2:
            time.sleep(0.005)
        def model_fn(model_dir):
            if min(BASE.glob("pid-*")).name == f"pid-{os.getpid()}":
                raise ValueError("one of two")
            time.sleep(60)
        """,
        SAGEMAKER_MODEL_SERVER_WORKERS=2,
    )
    started = time.monotonic()
    host.wait_failed()
    assert time.monotonic() - started < 30, "it does not wait for the other"
    assert not any(exists(int(path.name[4:])) for path in host.base.glob("pid-*"))


def test_sigterm_while_loading_is_a_clean_exit(hosts: Starter) -> None:
    host = hosts.start("import os, time\n(BASE / f'pid-{os.getpid()}').touch()\ntime.sleep(60)")
    pids = wait_until(lambda: list(host.base.glob("pid-*")), "the worker")
    assert host.stop() == 0
    assert not exists(int(pids[0].name[4:]))


def test_unknown_arguments_are_refused() -> None:
    environ = {**os.environ, "PYTHONPATH": str(Path(moorage.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-m", "moorage.modelhost", "train"],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "python -m moorage.modelhost serve" in ended.stderr


def test_front_killed_while_loading_leaves_no_worker(hosts: Starter) -> None:
    host = hosts.start("import os, time\n(BASE / f'pid-{os.getpid()}').touch()\ntime.sleep(60)")
    pids = wait_until(lambda: list(host.base.glob("pid-*")), "the worker")
    host.process.send_signal(signal.SIGKILL)
    wait_until(lambda: not exists(int(pids[0].name[4:])), "the worker to leave")
