"""Which networks a whole server gives its instances, by what the machine lets it do."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moorage import network_namespace
from moorage.launchers import seccomp
from tests.servers import MoorageServer, eventually

NO_NETWORK = network_namespace.why_unusable()
ECHO = {
    "code/inference.py": """
import os, socket
def model_fn(model_dir):
    return None
def transform_fn(model, body, content_type, accept):
    names = [name for _, name in socket.if_nameindex()]
    return ",".join([os.environ["SAGEMAKER_BIND_TO_PORT"], *sorted(names)]), "text/plain"
"""
}

# Root without the capability to make namespaces is to the kernel what any user is; without user namespaces, too, it
# is a user of a machine that gives none.
WITHOUT_CAPABILITIES = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
for capability in (12, 21):  # CAP_NET_ADMIN, CAP_SYS_ADMIN
    libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
program = bytes.fromhex(sys.argv[1])
if program:
    class Filter(ctypes.Structure):
        _fields_ = ("length", ctypes.c_ushort), ("program", ctypes.c_char_p)
    libc.prctl(38, 1, 0, 0, 0)
    assert libc.prctl(22, 2, ctypes.byref(Filter(len(program) // 8, program)), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


def without_capabilities(*, user_namespaces: bool) -> tuple[str, ...]:
    program = b"" if user_namespaces else seccomp.container_filter()
    return sys.executable, "-c", WITHOUT_CAPABILITIES, program.hex()


def answer_of(server: MoorageServer, name: str) -> str:
    reply = server.client("sagemaker-runtime").invoke_endpoint(EndpointName=name, Body=b"x")
    text: str = reply["Body"].read().decode()
    return text


@pytest.mark.skipif(os.geteuid() != 0 or NO_NETWORK is not None, reason=f"needs root ({NO_NETWORK})")
@pytest.mark.parametrize(
    ("options", "says", "answers"),
    [
        ({}, "a network of their own, and reach the outside", "8080,eth0,lo"),
        ({"container_network": "isolated"}, "a network of their own, and reach nobody", "8080,lo"),
        ({"container_network": "host"}, "share the machine's network", None),
        ({"before": without_capabilities(user_namespaces=True)}, "and reach the outside", "8080,eth0,lo"),
        ({"before": without_capabilities(user_namespaces=False)}, "does not let its users make", None),
    ],
    ids=["root", "isolated", "host", "user namespaces", "nothing"],
)
def test_instances_have_the_network_that_the_machine_and_the_settings_give(
    new_server: Callable[..., MoorageServer], options: dict[str, object], says: str, answers: str | None
) -> None:
    server = new_server(**options)
    assert says in server.log
    server.deploy("network", ECHO)
    answer = answer_of(server, "network")
    if answers is None:
        port, *interfaces = answer.split(",")
        assert port != "8080"
        assert interfaces == sorted(path.name for path in Path("/sys/class/net").iterdir())
    else:
        assert answer == answers


@pytest.mark.skipif(NO_NETWORK is not None, reason=str(NO_NETWORK))
def test_a_model_that_asks_for_isolation_has_it(server: MoorageServer) -> None:
    server.deploy("isolated", ECHO, model={"EnableNetworkIsolation": True})
    assert answer_of(server, "isolated") == "8080,lo"


@pytest.mark.skipif(NO_NETWORK is not None, reason=str(NO_NETWORK))
def test_calls_go_out_again_after_the_process_that_carries_them_died(
    new_server: Callable[..., MoorageServer],
) -> None:
    server = new_server()
    server.deploy("calls-out", ECHO)
    assert answer_of(server, "calls-out") == "8080,eth0,lo"
    os.kill(server.process_of("outbound_process"), 9)
    eventually(lambda: answer_of(server, "calls-out") == "8080,lo")
    eventually(lambda: answer_of(server, "calls-out") == "8080,eth0,lo")
