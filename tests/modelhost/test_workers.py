"""The pool: parallel work, pings meanwhile, workers that die or hang, and their replacement."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from .hosts import Reply, Starter, exists, wait_until

# Marks that it runs, and goes on when the test says so.
WAITS = """
    import os, time
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        (BASE / f"running-{data}").write_text(str(os.getpid()))
        while not (BASE / f"go-{data}").exists():
            time.sleep(0.005)
        return data
    def input_fn(body, content_type):
        return body
"""


def in_background(call: Callable[[], Reply]) -> "Future[Reply]":
    """Threads that do not keep a failed test from ending."""
    future: Future[Reply] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def test_workers_run_in_parallel_and_the_rest_waits_its_turn(hosts: Starter) -> None:
    host = hosts.ready(WAITS, SAGEMAKER_MODEL_SERVER_WORKERS=3)
    replies = []
    for name in "abc":
        replies.append(in_background(lambda name=name: host.invoke(name)))  # type: ignore[misc]
        wait_until((host.base / f"running-{name}").exists, f"{name} to run")
    replies.append(in_background(lambda: host.invoke("d")))
    assert len({(host.base / f"running-{name}").read_text() for name in "abc"}) == 3
    assert host.ping().status == 200, "all workers are busy"
    (host.base / "go-b").touch()
    wait_until((host.base / "running-d").exists, "d to take the place of b")
    for name in "acd":
        (host.base / f"go-{name}").touch()
    assert [reply.result(30).text for reply in replies] == ['"a"', '"b"', '"c"', '"d"']


def test_many_clients_on_few_workers(hosts: Starter) -> None:
    host = hosts.ready("def model_fn(d): return lambda data: data", SAGEMAKER_MODEL_SERVER_WORKERS=2)
    with ThreadPoolExecutor(16) as clients:
        texts = list(clients.map(lambda number: host.invoke(f"[{number}]").text, range(300)))
    assert texts == [f"[{number}]" for number in range(300)]


def test_a_connection_is_kept(hosts: Starter) -> None:
    host = hosts.ready("def model_fn(d): return lambda data: data")
    connection = host.connect()
    for number in range(3):
        connection.request("POST", "/invocations", f"[{number}]", {"Content-Type": "application/json"})
        if number == 0:
            sock = connection.sock
        assert connection.getresponse().read() == f"[{number}]".encode()
        assert connection.sock is sock
    connection.close()


def test_a_worker_killed_in_an_invocation_is_500_and_replaced(hosts: Starter) -> None:
    host = hosts.ready(WAITS)
    reply = in_background(lambda: host.invoke("a"))
    wait_until((host.base / "running-a").exists, "a to run")
    waiting = in_background(lambda: host.invoke("b"))
    (worker,) = host.workers()
    os.kill(worker, signal.SIGKILL)
    assert reply.result(30).status == 500
    assert "killed by SIGKILL (signal 9)" in reply.result().text
    assert reply.result().headers["x-moorage-invocation"] == "interrupted"
    (host.base / "go-b").touch()
    assert waiting.result(30).text == '"b"', "what waited gets the new worker"
    assert host.workers() != [worker]
    assert host.ping().status == 200


def test_an_exit_in_user_code_names_the_code(hosts: Starter) -> None:
    host = hosts.ready("import os\ndef model_fn(d): return lambda data: os._exit(3)")
    for _ in range(2):
        assert "ended with exit code 3" in host.invoke("[]").text


def test_an_idle_worker_that_dies_is_replaced(hosts: Starter) -> None:
    host = hosts.ready("def model_fn(d): return lambda data: data")
    (worker,) = host.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: "replaced" in host.log, "the replacement")
    assert host.invoke("[1]").text == "[1]"


def test_a_child_of_user_code_that_holds_the_socket_does_not_hide_a_death(hosts: Starter) -> None:
    host = hosts.ready("""
        import os, time
        def model_fn(model_dir):
            return None
        def predict_fn(data, model):
            pid = os.fork()
            if pid == 0:
                while not (BASE / "done").exists():
                    time.sleep(0.01)
                os._exit(0)
            os._exit(4)
        """)
    assert "exit code 4" in host.invoke("[]").text
    (host.base / "done").touch()


def test_without_a_worker_ping_and_invocations_say_why(hosts: Starter) -> None:
    host = hosts.ready("""
        def model_fn(model_dir):
            if (BASE / "broken").exists():
                raise ValueError("weights are gone")
            return lambda data: data
        """)
    (host.base / "broken").touch()
    os.kill(host.workers()[0], signal.SIGKILL)
    waiting = wait_until(lambda: (reply := host.ping()).status == 503 and reply, "the ping to fail")
    assert "worker 1" in waiting.text
    waiting = wait_until(lambda: "weights are gone" in (reply := host.ping()).text and reply, "the reason")
    assert waiting.status == 503
    refused = host.invoke("[]")
    assert refused.status == 503
    assert "weights are gone" in refused.text
    assert "in model_fn" in host.log
    (host.base / "broken").unlink()
    wait_until(lambda: host.ping().status == 200, "recovery")
    assert host.invoke("[1]").text == "[1]"


def test_a_prediction_that_takes_too_long_is_killed(hosts: Starter) -> None:
    host = hosts.ready(
        """
        import time
        def model_fn(model_dir):
            return stuck
        def stuck(data):
            time.sleep(60 if data["slow"] else 0)
            return "done"
        """,
        SAGEMAKER_MODEL_SERVER_TIMEOUT=0.5,
    )
    reply = host.invoke('{"slow": true}')
    assert reply.status == 500
    assert "longer than 0.5 s (SAGEMAKER_MODEL_SERVER_TIMEOUT" in reply.text
    assert "x-moorage-invocation" not in reply.headers, "it would take too long again"
    assert "in stuck" in host.log, "where it hung"
    assert host.invoke('{"slow": false}').text == '"done"'


def test_a_client_that_leaves_the_queue_costs_nothing(hosts: Starter) -> None:
    host = hosts.ready(WAITS)
    first = in_background(lambda: host.invoke("a"))
    wait_until((host.base / "running-a").exists, "a to run")
    impatient = host.connect()
    impatient.request("POST", "/invocations", "b", {"Content-Type": "application/json"})
    assert host.ping().status == 200
    impatient.close()
    assert host.ping().status == 200
    (host.base / "go-a").touch()
    (host.base / "go-c").touch()
    assert first.result(30).status == 200
    assert host.invoke("c").status == 200
    assert not (host.base / "running-b").exists()


def test_a_plain_prediction_is_not_interrupted_and_the_worker_comes_back(hosts: Starter) -> None:
    host = hosts.ready(WAITS)
    impatient = host.connect()
    impatient.request("POST", "/invocations", "a", {"Content-Type": "application/json"})
    wait_until((host.base / "running-a").exists, "a to run")
    worker = host.workers()
    impatient.close()
    (host.base / "go-a").touch()
    (host.base / "go-b").touch()
    assert host.invoke("b").text == '"b"'
    assert host.workers() == worker


def test_front_killed_in_an_invocation_leaves_no_process(hosts: Starter) -> None:
    host = hosts.ready(WAITS, SAGEMAKER_MODEL_SERVER_WORKERS=2)
    in_background(lambda: host.invoke("a"))
    wait_until((host.base / "running-a").exists, "a to run")
    workers = host.workers()
    assert len(workers) == 2
    host.process.send_signal(signal.SIGKILL)
    wait_until(lambda: not any(map(exists, workers)), "the workers to leave")


def test_sigterm_finishes_what_is_in_flight(hosts: Starter) -> None:
    host = hosts.ready(WAITS)
    running = in_background(lambda: host.invoke("a"))
    wait_until((host.base / "running-a").exists, "a to run")
    queued = in_background(lambda: host.invoke("b"))
    idle = host.connect()
    idle.request("GET", "/ping")
    assert idle.getresponse().read() == b""
    workers = host.workers()
    for worker in workers:  # as when the signal goes to the whole process group
        os.kill(worker, signal.SIGTERM)
    host.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not host.is_open(), "the port to close")
    assert host.process.poll() is None
    (host.base / "go-a").touch()
    (host.base / "go-b").touch()
    assert running.result(30).text == '"a"'
    assert queued.result(30).text == '"b"'
    assert host.process.wait(30) == 0
    assert not any(map(exists, workers))
    idle.close()


def test_sigterm_lets_user_code_clean_up(hosts: Starter) -> None:
    host = hosts.ready("""
        import atexit
        def model_fn(model_dir):
            atexit.register(print, "goodbye")
            return lambda data: data
        """)
    assert host.stop() == 0
    assert "goodbye" in host.log.splitlines()
    assert "Traceback" not in host.log
