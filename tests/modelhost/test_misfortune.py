"""What user code, clients and the machine do to a worker, and it goes on, or is replaced, and nobody is forgotten."""

import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from .hosts import Starter, wait_until
from .raw import Client, invocation

ECHO = "def model_fn(d): return lambda data: data\n"
TOOLKIT_ERROR = """
class BaseInferenceToolkitError(Exception):
    status_code = {}
def model_fn(d): return None
def predict_fn(data, model): raise BaseInferenceToolkitError("no")
"""
MISCHIEF = {
    "an output that cannot be flushed": (
        "import sys\nclass Output:\n    def write(self, text): return len(text)\nsys.stdout = Output()\n"
        + ECHO,
        200,
    ),
    "an output that is none": ("import sys\nsys.stdout = object()\n" + ECHO, 200),
    "no output": ("import sys\nsys.stdout = None\n" + ECHO, 200),
    "a closed error output": (
        "import sys\ndef model_fn(d): return None\n"
        "def predict_fn(data, model):\n    sys.stderr.close()\n    raise ValueError('no')\n",
        500,
    ),
    "an exception that cannot be shown": (
        "class No(Exception):\n    def __str__(self): return None\n"
        "def model_fn(d): return None\ndef predict_fn(data, model): raise No\n",
        500,
    ),
    "an exception with a status": (TOOLKIT_ERROR.format(422), 422),
    "an exception with no status": (TOOLKIT_ERROR.format(None), 500),
    "an exception with an odd status": (TOOLKIT_ERROR.format("'teapot'"), 500),
    "an exception with the status of no reply": (TOOLKIT_ERROR.format(100), 500),
}


@pytest.mark.parametrize("mischief", MISCHIEF)
def test_the_worker_outlives(hosts: Starter, mischief: str) -> None:
    program, status = MISCHIEF[mischief]
    host = hosts.ready(program)
    workers = host.workers()
    assert [host.invoke("[1]").status for _ in range(2)] == [status, status]
    assert host.workers() == workers
    assert host.stop() == 0
    assert "moorage/modelhost/front.py" not in host.log


def test_processes_that_user_code_forks_end_when_told_to(hosts: Starter) -> None:
    host = hosts.ready("""
        import multiprocessing, time
        def model_fn(d): return None
        def predict_fn(data, model):
            process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
            process.start()
            process.terminate()
            process.join()
            return [process.exitcode]
    """)
    assert host.invoke("[]").text == f"[{-signal.SIGTERM}]"


def test_a_generator_that_does_not_end_after_its_client_has_gone_is_stuck(hosts: Starter) -> None:
    host = hosts.ready(
        """
        import time
        def model_fn(d): return None
        def transform_fn(model, body, content_type, accept):
            if body == "[]":
                return body
            def parts():
                try:
                    while True:
                        yield b"x" * 1_000_000
                finally:
                    (BASE / "ending").touch()
                    time.sleep(1000)
            return parts()
        """,
        SAGEMAKER_MODEL_SERVER_TIMEOUT=1,
    )
    with Client(host) as client:
        client.send(invocation("[1]"))
        assert client.line().startswith(b"HTTP/1.1 200")
    wait_until((host.base / "ending").exists, "the generator's end")
    assert host.invoke("[]").text == "[]"


def test_a_stream_without_a_body_has_no_parts(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(d): return None
        def transform_fn(model, body, content_type, accept, context):
            if body == "[]":
                return body
            context.set_response_status(204)
            return iter([b"HTTP/1.1 200 OK\\r\\ncontent-length: 5\\r\\n\\r\\nWRONG"])
    """)
    with Client(host) as client:
        client.send(invocation("[1]"))
        assert client.line() == b"HTTP/1.1 204 No Content\r\n"
        while client.line() != b"\r\n":
            continue
        client.send(invocation("[]"))
        assert client.reply().text == "[]"


def test_clients_that_come_together_have_their_turns(hosts: Starter) -> None:
    clients = 16
    host = hosts.ready(
        "import time\ndef model_fn(d): return None\n"
        "def predict_fn(data, model):\n    time.sleep(0.01)\n    return data\n"
    )
    served: list[int] = []
    together = threading.Barrier(clients)

    def ask(name: int) -> None:
        with Client(host) as client:
            together.wait()
            while len(set(served)) < clients:
                client.send(invocation("[1]"))
                client.reply()
                served.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(served) < 6 * clients, served


def test_more_requests_than_one_read_takes_are_answered(hosts: Starter) -> None:
    count = 1_500
    with Client(hosts.ready(ECHO)) as client:
        sending = threading.Thread(target=client.send, args=(invocation("[1]") * count,))
        sending.start()
        assert {client.reply().status for _ in range(count)} == {200}
        sending.join()


def test_upgrades_without_end_do_no_harm(hosts: Starter) -> None:
    host = hosts.ready(ECHO)
    workers = host.workers()
    with Client(host) as client, Client(host) as other:
        other.send(invocation("[2]")[:-1])
        client.send(invocation("[1]"))
        assert client.reply().status == 200
        client.send(b"CONNECT a:1 HTTP/1.1\r\n\r\n" * 2_600)
        assert client.reply().status == 404
        other.send(b"]")
        assert other.reply().text == "[2]"
    assert host.workers() == workers


def test_a_worker_for_which_there_are_no_descriptors_comes_later(hosts: Starter) -> None:
    host = hosts.ready(ECHO)
    front = host.process.pid
    limits = resource.prlimit(front, resource.RLIMIT_NOFILE)
    used = len(list(Path(f"/proc/{front}/fd").iterdir()))
    resource.prlimit(front, resource.RLIMIT_NOFILE, (used + 1, limits[1]))
    os.kill(host.workers()[0], signal.SIGKILL)
    wait_until(lambda: "No process can be started for the model" in host.log, "a failed replacement")
    resource.prlimit(front, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: "worker 1 replaced" in host.log, "the replacement")
    assert host.invoke("[1]").text == "[1]"


def test_who_has_sent_half_a_line_does_not_keep_the_host_from_its_end(hosts: Starter) -> None:
    host = hosts.ready("""
        import atexit
        def model_fn(d):
            atexit.register((BASE / "cleaned").touch)
            return lambda data: data
    """)
    with Client(host) as client:
        client.send(b"GET /pi")
        assert host.stop() == 0
    assert (host.base / "cleaned").exists()
