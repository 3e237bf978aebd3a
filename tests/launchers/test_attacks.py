"""What a hostile container tries, against real processes. Everything is bounded: sizes, counts and times."""

import asyncio
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from moorage import network_namespace
from moorage.launchers import bubblewrap, cgroups, procfs, seccomp
from moorage.launchers.base import InstanceState, InstanceStatus
from moorage.launchers.bubblewrap import View
from moorage.launchers.isolation import Isolation, Limits, Network
from moorage.launchers.process import ProcessLauncher

from .containers import (
    SERVER,
    Mailbox,
    log_of,
    process_launcher,
    reaches,
    spec_for,
    until,
    wait_for_death,
)

S = InstanceStatus
NO_VIEW = bubblewrap.why_unusable(View(), uid=None)
NO_NETWORK = network_namespace.why_unusable()
CGROUPS, NO_CGROUPS = cgroups.find_usable(marker="/test-attacks")
needs_view = pytest.mark.skipif(NO_VIEW is not None, reason=str(NO_VIEW))
needs_network = pytest.mark.skipif(NO_NETWORK is not None, reason=str(NO_NETWORK))
needs_memory_group = pytest.mark.skipif(
    CGROUPS is None or not {"memory", "pids"} <= set(CGROUPS.controllers), reason=NO_CGROUPS
)

Start = Callable[..., ProcessLauncher]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Makes launchers with some isolation."""
    made: list[ProcessLauncher] = []

    def make(isolation: Isolation, **changes: Any) -> ProcessLauncher:
        made.append(process_launcher(tmp_path, isolation=isolation, **changes))
        return made[-1]

    yield make
    for launcher in made:
        await launcher.close(hurry=True)


async def settled(launcher: ProcessLauncher, instance_id: str) -> InstanceState:
    ends = (S.IN_SERVICE, S.FAILED)
    return (await until(launcher, lambda states: states[instance_id].status in ends))[instance_id]


async def answers(
    launcher: ProcessLauncher, tmp_path: Path, script: str, **changes: Any
) -> tuple[Any, InstanceState]:
    """What the script leaves in `answer`, from inside of a container that then serves."""
    report = "\nimport json; print('told:' + json.dumps(answer), flush=True)\n"
    spec = spec_for(tmp_path, SERVER + script + report + "serve()", **changes)
    await launcher.launch(spec)
    state = await settled(launcher, spec.instance_id)
    assert state.status is S.IN_SERVICE, state.failure
    (line,) = [line for line in log_of(spec).splitlines() if line.startswith("told:")]
    return json.loads(line.removeprefix("told:")), state


# --- the port, on the machine's network ----------------------------------------------------------------

PONG = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def test_who_answers_pings_in_place_of_a_container_is_not_believed(
    start: Start, tmp_path: Path, mailbox: Mailbox
) -> None:
    """A neighbour waits for the port that a container is given, and listens there first."""
    launcher = start(Isolation())
    tells = f"open({str(mailbox.path)!r}, 'w').write(os.environ['SAGEMAKER_BIND_TO_PORT'] + chr(10))\n"
    script = "import os, signal\n" + tells + "signal.pause()"
    spec = spec_for(tmp_path, script, startup_timeout_seconds=2)
    await launcher.launch(spec)
    port = int(await mailbox.line())
    pings = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pings
        pings += (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /ping")
        writer.write(PONG)
        writer.close()

    neighbour = await asyncio.start_server(answer, "127.0.0.1", port)
    try:
        state = await settled(launcher, spec.instance_id)
    finally:
        neighbour.close()
    assert state.status is S.FAILED
    assert f"another program than this container answers on port {port}" in str(state.failure)
    assert pings > 0


async def test_only_the_processes_of_the_instance_may_listen_on_its_port(
    start: Start, tmp_path: Path
) -> None:
    launcher = start(Isolation())
    spec = spec_for(tmp_path)
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    own = [each for each in procfs.processes() if each.instance_id == spec.instance_id]
    strangers = procfs.living([os.getpid()])
    assert procfs.listen_alone(own, state.port)
    assert not procfs.listen_alone(strangers, state.port)
    assert not procfs.listen_alone([], state.port)
    with socket.create_server(("127.0.0.2", state.port)):  # another address of the same port
        assert not procfs.listen_alone(own, state.port)


async def test_a_shortage_of_ports_is_waited_out(start: Start, tmp_path: Path) -> None:
    launcher = start(Isolation())
    blocks = launcher.ports.take_all()
    spec = spec_for(tmp_path, startup_timeout_seconds=2)
    await launcher.launch(spec)
    waiting = (await until(launcher, lambda states: "It waits" in str(states[spec.instance_id].failure)))[
        spec.instance_id
    ]
    assert waiting.status is S.STARTING
    assert "no free port is left" in str(waiting.failure)
    launcher.ports.give_back(blocks[0])
    state = await settled(launcher, spec.instance_id)
    assert state.status is S.IN_SERVICE
    assert state.failure is None
    assert "waits: no free port is left" in log_of(spec)


async def test_a_stop_ends_the_wait_for_a_port(start: Start, tmp_path: Path) -> None:
    launcher = start(Isolation())
    launcher.ports.take_all()
    spec = spec_for(tmp_path)
    await launcher.launch(spec)
    await until(launcher, lambda states: "It waits" in str(states[spec.instance_id].failure))
    async with asyncio.timeout(5):
        await launcher.stop(spec.instance_id)


async def test_who_holds_too_many_sockets_gives_way_when_ports_are_short(
    start: Start, tmp_path: Path
) -> None:
    launcher = start(Isolation(limits=Limits(open_files=4096)))
    greedy = SERVER + "import socket\nheld = [socket.socket() for _ in range(2500)]\nserve()"
    first = spec_for(tmp_path, greedy)
    await launcher.launch(first)
    await reaches(launcher, first.instance_id, S.IN_SERVICE)
    blocks = launcher.ports.take_all()
    second = spec_for(tmp_path)
    await launcher.launch(second)
    state = await reaches(launcher, first.instance_id, S.RESTARTING)
    assert "sockets while the machine was short of ports" in str(state.failure)
    for block in blocks[:2]:
        launcher.ports.give_back(block)
    await reaches(launcher, second.instance_id, S.IN_SERVICE)


async def test_a_container_on_another_port_is_told_so_at_once(start: Start, tmp_path: Path) -> None:
    launcher = start(Isolation())
    spec = spec_for(tmp_path, SERVER + "serve(port=PORT + 1)")
    await launcher.launch(spec)
    state = (await until(launcher, lambda states: states[spec.instance_id].port > 0))[spec.instance_id]
    async with asyncio.timeout(10):
        while "but not on port" not in log_of(spec):
            await asyncio.sleep(0.05)
    assert f"listens on port {state.port + 1}, but not on port {state.port}" in log_of(spec)


# --- a network of its own ------------------------------------------------------------------------------

OWN_NETWORK = Isolation(network=Network.ISOLATED)


@needs_network
async def test_every_container_has_port_8080_and_nobody_else_reaches_it(start: Start, tmp_path: Path) -> None:
    launcher = start(OWN_NETWORK)
    hard_coded = SERVER + "serve(port=8080)"
    specs = [spec_for(tmp_path, hard_coded) for _ in range(3)]
    for spec in specs:
        await launcher.launch(spec)
    states = [await settled(launcher, spec.instance_id) for spec in specs]
    assert [(state.status, state.port) for state in states] == [(S.IN_SERVICE, 8080)] * 3
    assert len({state.network for state in states}) == 3
    inside = network_namespace.socket_in(states[0].network)
    with inside:
        await asyncio.get_running_loop().sock_connect(inside, ("127.0.0.1", 8080))
    listening = procfs.listening_ports(procfs.living([int(states[0].network.partition("/")[0])]))
    assert listening  # seen from the instance itself
    with socket.socket() as outside:
        outside.settimeout(2)
        mine = {port for _, port in procfs._listening_sockets(os.getpid()).values()}
        if 8080 not in mine:
            with pytest.raises(ConnectionRefusedError):
                outside.connect(("127.0.0.1", 8080))


@needs_network
async def test_a_container_reaches_neither_the_machine_nor_a_neighbour(start: Start, tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0moorage-test-{os.getpid()}")
    abstract.listen()
    launcher = start(OWN_NETWORK)
    answer, _ = await answers(
        launcher,
        tmp_path,
        "import socket\nanswer = {}\n"
        f"for name, family, address in (('machine', 2, ('127.0.0.1', {port})), ('outside', 2, ('192.0.2.1', 80)),\n"
        f"                             ('abstract', 1, '\\0moorage-test-{os.getpid()}')):\n"
        "    with socket.socket(family) as sock:\n"
        "        sock.settimeout(2)\n"
        "        try:\n"
        "            sock.connect(address); answer[name] = 'connected'\n"
        "        except OSError as error:\n"
        "            answer[name] = type(error).__name__\n"
        "answer['interfaces'] = [name for _, name in socket.if_nameindex()]\n",
    )
    server.close()
    abstract.close()
    assert answer == {
        "machine": "ConnectionRefusedError",
        "outside": "OSError",
        "abstract": "ConnectionRefusedError",
        "interfaces": ["lo"],
    }


@needs_network
async def test_taking_every_port_of_its_own_network_takes_none_of_anybody_elses(
    start: Start, tmp_path: Path
) -> None:
    launcher = start(OWN_NETWORK)
    greedy = (
        "import socket\nheld = []\n"
        "for port in range(10000, 12000):\n"
        "    held.append(socket.socket()); held[-1].bind(('127.0.0.1', port))\n"
        "answer = len(held)\n"
    )
    answer, _ = await answers(launcher, tmp_path, greedy)
    assert answer == 2000
    other = spec_for(tmp_path)
    await launcher.launch(other)
    await reaches(launcher, other.instance_id, S.IN_SERVICE)


@needs_network
async def test_a_restarted_container_has_a_new_network_and_the_old_one_is_refused(
    start: Start, tmp_path: Path
) -> None:
    launcher = start(OWN_NETWORK)
    spec = spec_for(tmp_path)
    await launcher.launch(spec)
    first = await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    os.kill(int(first.network.partition("/")[0]), 9)
    second = await reaches(launcher, spec.instance_id, S.IN_SERVICE, generation=2)
    assert first.network != second.network
    with pytest.raises(ConnectionRefusedError):
        network_namespace.socket_in(first.network)


async def test_a_model_that_asks_for_isolation_does_not_start_without(start: Start, tmp_path: Path) -> None:
    launcher = start(Isolation())
    spec = spec_for(tmp_path, network_isolation=True)
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert "EnableNetworkIsolation, which needs a network of its own" in str(state.failure)


# --- memory, processes, namespaces ---------------------------------------------------------------------


@needs_memory_group
async def test_files_in_memory_count_as_memory(start: Start, tmp_path: Path) -> None:
    launcher = start(Isolation(cgroups=CGROUPS, limits=Limits(memory_bytes=64 * 2**20)))
    script = (
        "import os\nfile = os.memfd_create('x')\n"
        "for _ in range(256): os.write(file, b'x' * 2**20)\n"
        "print('wrote it all')\n"
    )
    spec = spec_for(tmp_path, script)
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert "was killed by signal 9 (SIGKILL)" in str(state.failure)
    assert "it reached its limit of 67108864 bytes of memory" in str(state.failure)
    assert "\nwrote it all" not in log_of(spec)


SOCKETS = """
import socket
listener = socket.create_server(("127.0.0.1", 0))
answer, kept = 0, []
for _ in range(40):
    kept.append(socket.create_connection(listener.getsockname()))
    kept.append(listener.accept()[0])
    kept[-2].setblocking(False)
    try:
        while True: answer += kept[-2].send(bytes(65536))
    except BlockingIOError:
        pass
for each in kept: each.close()
"""


@needs_memory_group
async def test_what_waits_in_sockets_counts_as_memory(start: Start, tmp_path: Path) -> None:
    """The kernel has a limit for all TCP of the machine, and takes from everybody when it is reached."""
    launcher = start(Isolation(cgroups=CGROUPS, limits=Limits(memory_bytes=2**26)))
    answer, _ = await answers(launcher, tmp_path, SOCKETS)
    assert answer < 2**26


@needs_memory_group
async def test_the_number_of_processes_is_the_instances(start: Start, tmp_path: Path) -> None:
    launcher = start(Isolation(cgroups=CGROUPS, limits=Limits(processes=20)))
    answer, _ = await answers(
        launcher,
        tmp_path,
        "import signal\nchildren = []\n"
        "try:\n"
        "    for _ in range(100):\n"
        "        child = os.fork()\n"
        "        if not child: signal.pause()\n"
        "        children.append(child)\n"
        "except BlockingIOError:\n"
        "    pass\n"
        "answer = len(children)\n"
        "for child in children: os.kill(child, 9); os.waitpid(child, 0)\n",
    )
    assert 10 <= answer < 20


@needs_memory_group
async def test_a_group_is_gone_with_its_instance(start: Start, tmp_path: Path) -> None:
    assert CGROUPS is not None
    launcher = start(Isolation(cgroups=CGROUPS))
    spec = spec_for(tmp_path)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    directories = [each for path in CGROUPS.directories for each in path.glob(f"*{spec.instance_id}*")]
    assert directories
    await launcher.stop(spec.instance_id)
    assert [each for each in directories if each.exists()] == []


USER_NAMESPACE = (
    "import ctypes, subprocess\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "answer = [libc.unshare(0x10000000), ctypes.get_errno(), libc.syscall(435, None, 0), ctypes.get_errno()]\n"
)


@pytest.mark.parametrize("view", [False, pytest.param(True, marks=needs_view)])
async def test_a_container_makes_no_user_namespace(start: Start, tmp_path: Path, view: bool) -> None:
    fence = Isolation(view=View() if view else None, seccomp=seccomp.container_filter())
    answer, _ = await answers(start(fence), tmp_path, USER_NAMESPACE)
    assert answer == [-1, 1, -1, 38]  # EPERM, ENOSYS


KEYS = """
import ctypes, platform
numbers = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
answer = []
for number, arguments in zip(numbers, (
    (b"user", b"name", b"value", 5, -3), (b"user", b"name", None, 0), (0, -3, 1)
)):
    answer += [libc.syscall(number, *arguments), ctypes.get_errno()]
"""


@pytest.mark.parametrize("view", [False, pytest.param(True, marks=needs_view)])
async def test_a_container_uses_no_keys_of_the_kernel(start: Start, tmp_path: Path, view: bool) -> None:
    """It has the server's session keyring, and would read what is in it as whatever user."""
    fence = Isolation(view=View() if view else None, seccomp=seccomp.container_filter())
    answer, _ = await answers(start(fence), tmp_path, KEYS)
    assert answer == [-1, 1] * 3  # EPERM


@needs_view
async def test_shared_memory_has_a_size(start: Start, tmp_path: Path) -> None:
    if not bubblewrap.has_size_option(View().program):
        pytest.skip("this bubblewrap is older than 0.7")
    launcher = start(Isolation(view=View(shm_bytes=2**20)))
    answer, _ = await answers(
        launcher,
        tmp_path,
        "answer = 0\n"
        "try:\n"
        "    with open('/dev/shm/x', 'wb', buffering=0) as file:\n"
        "        while True: answer += file.write(b'x' * 65536)\n"
        "except OSError as error:\n"
        "    pass\n",
    )
    assert 2**19 <= answer <= 2**20


DAEMON = SERVER + (
    "import signal\n"
    "if not os.fork():\n"
    "    os.setsid()\n"
    "    if os.fork(): os._exit(0)\n"
    "    for descriptor in range(3): os.close(descriptor)\n"
    "    os.execve('/bin/sh', ['sh', '-c', 'echo $$ > %s; while :; do sleep 1; done'], {})\n"
    "os.wait()\n"
    "serve()"
)


@pytest.mark.parametrize("grouped", [False, pytest.param(True, marks=needs_memory_group)])
async def test_a_daemon_that_hides_ends_with_its_instance(
    start: Start, tmp_path: Path, mailbox: Mailbox, grouped: bool
) -> None:
    """It has left its session, its parent is gone, and its environment is empty."""
    procfs.become_subreaper()
    launcher = start(Isolation(cgroups=CGROUPS if grouped else None), ends_orphans=not grouped)
    spec = spec_for(tmp_path, DAEMON % mailbox.path)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    daemon = int(await mailbox.line())
    await launcher.stop(spec.instance_id)
    wait_for_death([daemon])


HEADLESS = """
import ctypes, os, sys, threading, time
def go_on():
    while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    with open(sys.argv[1], "w") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(1000)
threading.Thread(target=go_on).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)  # the end of this thread alone
"""


@pytest.mark.parametrize("grouped", [False, pytest.param(True, marks=needs_memory_group)])
async def test_a_daemon_whose_first_thread_has_ended_ends_with_its_instance(
    start: Start, tmp_path: Path, mailbox: Mailbox, grouped: bool
) -> None:
    """The kernel shows it as a zombie, and it runs."""
    launcher = start(Isolation(cgroups=CGROUPS if grouped else None))
    program = [sys.executable, "-c", HEADLESS, str(mailbox.path)]
    code = f"import subprocess; subprocess.Popen({program!r}, start_new_session=True)\nserve()"
    spec = spec_for(tmp_path, SERVER + code)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    daemon = os.pidfd_open(int(await mailbox.line()))
    try:
        await launcher.stop(spec.instance_id)
        assert select.select([daemon], [], [], 10)[0] == [daemon]
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(daemon, signal.SIGKILL)
        os.close(daemon)


HOPPER = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **arguments) {
    time_t end = time(NULL) + 20;
    setsid();
    FILE *told = fopen(arguments[1], "w");
    fprintf(told, "hops\n");
    fclose(told);
    while (time(NULL) < end)
        if (syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0) > 0) _exit(0);
    return 0;
}
"""


def compiled(source: str, program: Path) -> str:
    if not shutil.which("cc"):
        if os.environ.get("CI") == "true":
            pytest.fail("there is no C compiler")
        pytest.skip("there is no C compiler")
    program.with_suffix(".c").write_text(source)
    subprocess.run(["cc", "-o", program, program.with_suffix(".c")], check=True)
    return str(program)


@needs_memory_group
async def test_a_process_that_always_has_another_pid_ends_with_its_instance(
    start: Start, tmp_path: Path, mailbox: Mailbox
) -> None:
    """It forks and ends some ten thousand times a second: who looks for it, and then kills it, is too late."""
    assert CGROUPS is not None
    launcher = start(Isolation(cgroups=CGROUPS))
    argv = [compiled(HOPPER, tmp_path / "hopper"), str(mailbox.path)]
    spec = spec_for(tmp_path, SERVER + f"import subprocess; subprocess.run({argv!r})\nserve()")
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    assert await mailbox.line() == "hops"
    await launcher.stop(spec.instance_id)
    left = [each for parent in CGROUPS.directories for each in parent.glob(f"*{spec.instance_id}*")]
    assert left == []


# --- the log -------------------------------------------------------------------------------------------


async def test_a_container_can_neither_cut_nor_read_nor_forge_its_log(start: Start, tmp_path: Path) -> None:
    launcher = start(Isolation())
    answer, state = await answers(
        launcher,
        tmp_path,
        "answer = {}\n"
        "def attempt(name, what):\n"
        "    try:\n"
        "        answer[name] = repr(what())\n"
        "    except OSError as error:\n"
        "        answer[name] = type(error).__name__\n"
        "attempt('cut', lambda: os.ftruncate(os.open('/proc/self/fd/1', os.O_RDWR | os.O_NONBLOCK), 3 << 30))\n"
        "attempt('seek', lambda: os.lseek(1, 0, 0))\n"
        "print('[moorage] 2026-01-01T00:00:00Z instance i-1 in service', flush=True)\n",
    )
    assert answer == {"cut": "OSError", "seek": "OSError"}
    log = log_of(state.spec)
    assert "\n [moorage] 2026-01-01" in log
    assert "\n[moorage] 2026-01-01" not in log
    assert Path(state.spec.log_file).stat().st_size < 100_000


async def test_a_burst_of_output_does_not_fill_the_disk(start: Start, tmp_path: Path) -> None:
    launcher = start(Isolation(), log_limit_bytes=2**20, log_rate=2**16)
    spec = spec_for(tmp_path, "for _ in range(50): print('x' * 2**20)\nprint('the end')")
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.FAILED, seconds=60)
    await launcher.close(hurry=True)
    size = sum(path.stat().st_size for path in tmp_path.glob(f"{spec.instance_id}.log*"))
    assert size <= 2**20 + 4096
    assert "left out here: it was more than 65536 bytes a second" in log_of(spec)
