"""Instances as real processes: their start, death, restart and end."""

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from moorage.launchers import procfs
from moorage.launchers.base import InstanceStatus, LauncherError
from moorage.launchers.process import ProcessLauncher, sweep

from .containers import (
    HEALTHY,
    SERVER,
    Mailbox,
    leader_of,
    living,
    log_of,
    process_launcher,
    reaches,
    spec_for,
    until,
    wait_for_death,
)

S = InstanceStatus

WRITE_ENVIRONMENT = """
import json, os, resource, signal
facts = {
    "environ": dict(os.environ),
    "cwd": os.getcwd(),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "umask": os.umask(0),
    "leader": os.getpid() == os.getsid(0) == os.getpgid(0),
    "stdin": os.read(0, 1).decode(),
}
print(json.dumps(facts))
"""


def say(mailbox: Mailbox, text: str) -> str:
    """A line of a container's script that tells the test something; `text` is an expression."""
    return f"open({str(mailbox.path)!r}, 'w').write(str({text}) + chr(10))\n"


# --- starting ------------------------------------------------------------------------------------------


async def test_a_container_sees_a_clean_environment_of_its_own(
    launcher: ProcessLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for containers")
    monkeypatch.setenv("TZ", "Antarctica/Troll")
    own = {"MINE": "1", "AWS_REGION": "eu-west-9", "SM_MODEL_DIR": "/x"}
    spec = spec_for(tmp_path, WRITE_ENVIRONMENT, environment=own)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.FAILED)
    log = log_of(spec)
    facts = json.loads(next(line for line in log.splitlines() if line.startswith("{")))
    environ = facts.pop("environ")
    assert facts == {
        "cwd": spec.base_dir,
        "core": [0, 0],
        "umask": 0o022,
        "leader": True,
        "stdin": "",
    }
    port = int(environ["SAGEMAKER_BIND_TO_PORT"])
    assert (
        environ.items()
        >= {
            "MINE": "1",
            "TZ": "Antarctica/Troll",
            "AWS_REGION": "eu-west-9",
            "SAGEMAKER_REGION": "us-east-1",
            "SAGEMAKER_BIND_TO_HOST": "127.0.0.1",
            "SAGEMAKER_SAFE_PORT_RANGE": f"{port + 1}-{port + 7}",
            "SAGEMAKER_BASE_DIR": spec.base_dir,
            "SM_MODEL_DIR": f"{spec.base_dir}/model",
            "MOORAGE_DATA_DIR": launcher.marker,
            "MOORAGE_INSTANCE_ID": spec.instance_id,
        }.items()
    )
    assert "AWS_SECRET_ACCESS_KEY" not in environ


async def test_a_container_starts_with_pythons_changes_of_signals_undone(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    spec = spec_for(tmp_path, argv=("sh", "-c", "grep SigIgn /proc/self/status; exit 1"))
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    (line,) = state.log_tail
    ignored = int(line.split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1))


async def test_the_log_tells_the_whole_story(launcher: ProcessLauncher, tmp_path: Path) -> None:
    spec = spec_for(tmp_path, "print('hello'); " + HEALTHY)
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    leader = leader_of(spec, launcher.marker)
    await launcher.stop(spec.instance_id)
    log = log_of(spec)
    assert f"instance {spec.instance_id} started: generation 1, pid {leader}, port {state.port}, " in log
    assert shlex.join(spec.argv).replace("\n", "\\n") in log
    assert "in service after" in log
    assert "\nhello\n" in log
    assert "is being stopped" in log
    assert log.endswith("was killed by signal 15 (SIGTERM)\n")


async def test_many_instances_start_at_the_same_time(launcher: ProcessLauncher, tmp_path: Path) -> None:
    specs = [spec_for(tmp_path) for _ in range(12)]
    await asyncio.gather(*(launcher.launch(spec) for spec in specs))
    latest = await until(
        launcher, lambda states: [state.status for state in states.values()] == [S.IN_SERVICE] * len(specs)
    )
    assert len({state.port for state in latest.values()}) == len(specs)
    await asyncio.gather(*(launcher.stop(spec.instance_id, hurry=True) for spec in specs))
    assert [living(launcher.marker, spec.instance_id) for spec in specs] == [[]] * len(specs)


async def test_a_closed_launcher_starts_nothing(launcher: ProcessLauncher, tmp_path: Path) -> None:
    spec = spec_for(tmp_path)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    await launcher.close()
    assert living(launcher.marker, spec.instance_id) == []
    with pytest.raises(LauncherError):
        await launcher.launch(spec_for(tmp_path))


# --- failing to start ----------------------------------------------------------------------------------


async def test_an_exit_at_the_start_names_status_and_last_lines(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    script = "import sys; [print('line', n) for n in range(30)]; sys.exit('ValueError: no such model')"
    spec = spec_for(tmp_path, script)
    begin = time.monotonic()
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert time.monotonic() - begin < 5
    assert state.failure is not None
    assert state.failure.startswith(
        'The container "container-1" for production variant AllTraffic exited with status 1 '
        "before it passed the ping health check\nLast lines of its log:\n"
    )
    assert state.failure.endswith(f"\nValueError: no such model\nLog: {spec.log_file}")
    assert state.log_tail == (*(f"line {n}" for n in range(21, 30)), "ValueError: no such model")


async def test_a_signal_at_the_start_is_named(launcher: ProcessLauncher, tmp_path: Path) -> None:
    spec = spec_for(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert "was killed by signal 11 (SIGSEGV)" in state.failure


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("/no/such/file", "its command /no/such/file does not exist"),
        ("/etc/passwd", "its command /etc/passwd is not an executable file"),
        ("/etc", "its command /etc is not an executable file"),
    ],
)
async def test_a_command_that_is_not_there_fails_at_once(
    launcher: ProcessLauncher, tmp_path: Path, command: str, why: str
) -> None:
    spec = spec_for(tmp_path, argv=(command, "serve"))
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert f"could not be started: {why}" in state.failure


async def test_a_command_that_is_not_in_the_containers_path_says_so(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    spec = spec_for(tmp_path, argv=("no-such-command-anywhere", "serve"), environment={"PATH": "/usr/bin"})
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert "cannot execute no-such-command-anywhere: it was not found in the PATH /usr/bin" in state.failure


async def test_a_command_the_kernel_refuses_says_so(launcher: ProcessLauncher, tmp_path: Path) -> None:
    script = tmp_path / "serve"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    spec = spec_for(tmp_path, argv=(str(script),))
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert f"cannot execute {script}: No such file or directory" in state.failure


async def test_a_log_that_cannot_be_written_fails_the_instance(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    spec = spec_for(tmp_path, log_file=str(tmp_path / "file" / "i.log"))
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert "could not be started: " in state.failure


async def test_the_wrong_port_is_pointed_out(launcher: ProcessLauncher, tmp_path: Path) -> None:
    spec = spec_for(tmp_path, SERVER + "serve(port=PORT + 1)", startup_timeout_seconds=1.5)
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert "did not pass the ping health check within 1.5 seconds: " in state.failure
    assert f"it did not open port {state.port} but listens on port {state.port + 1};" in state.failure
    assert living(launcher.marker, spec.instance_id) == []


async def test_an_unhealthy_answer_until_the_timeout_is_quoted(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    spec = spec_for(tmp_path, SERVER + "serve(status=503)", startup_timeout_seconds=1)
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert "it answered /ping with 503 (state)" in state.failure


async def test_silence_until_the_timeout_is_named(launcher: ProcessLauncher, tmp_path: Path) -> None:
    script = (
        "import os, signal, socket\n"
        "listener = socket.create_server(('127.0.0.1', int(os.environ['SAGEMAKER_BIND_TO_PORT'])))\n"
        "signal.pause()"
    )
    spec = spec_for(tmp_path, script, startup_timeout_seconds=1)
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    assert state.failure is not None
    assert "it did not answer /ping within 1 seconds" in state.failure


# --- dying and coming back -----------------------------------------------------------------------------


async def test_a_killed_container_is_started_again_and_says_why(
    launcher: ProcessLauncher, tmp_path: Path
) -> None:
    spec = spec_for(tmp_path)
    await launcher.launch(spec)
    first = await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    os.kill(leader_of(spec, launcher.marker), signal.SIGKILL)
    begin = time.monotonic()
    waiting = await reaches(launcher, spec.instance_id, S.STARTING, generation=2)
    second = await reaches(launcher, spec.instance_id, S.IN_SERVICE, generation=2)
    assert time.monotonic() - begin < 5
    assert waiting.failure is not None
    assert "was killed by signal 9 (SIGKILL)" in waiting.failure
    assert (first.generation, second.generation) == (1, 2)
    assert (first.restarts, second.restarts) == (0, 1)
    assert second.port != first.port
    assert second.failure is None


async def test_what_a_dead_leader_leaves_is_killed_before_the_restart(
    launcher: ProcessLauncher, tmp_path: Path, mailbox: Mailbox
) -> None:
    script = (
        "import os, signal\n"
        "if os.fork() == 0:\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"    {say(mailbox, 'os.getpid()')}"
        "    while True: signal.pause()\n"
    ) + HEALTHY
    spec = spec_for(tmp_path, script)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    child = int(await mailbox.line())
    os.kill(leader_of(spec, launcher.marker), signal.SIGKILL)
    await reaches(launcher, spec.instance_id, S.STARTING, generation=2)
    assert child not in {process.pid for process in living(launcher.marker, spec.instance_id)}


async def test_a_container_that_turns_bad_is_replaced(launcher: ProcessLauncher, tmp_path: Path) -> None:
    flag = tmp_path / "bad"
    script = SERVER + (
        "good = Handler.do_GET\n"
        "def do_GET(self):\n"
        "    global STATUS\n"
        f"    STATUS = 500 if os.path.exists({str(flag)!r}) else 200\n"
        "    good(self)\n"
        "Handler.do_GET = do_GET\n"
        "serve()"
    )
    spec = spec_for(tmp_path, script)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    flag.write_text("")
    state = await reaches(launcher, spec.instance_id, S.STARTING, generation=2)
    flag.unlink()
    await reaches(launcher, spec.instance_id, S.IN_SERVICE, generation=2)
    assert state.failure is not None
    assert "does not pass the ping health check any more: it answered /ping with 500 (state)" in state.failure


async def test_a_busy_container_is_borne_and_then_replaced(tmp_path: Path, mailbox: Mailbox) -> None:
    launcher = process_launcher(
        tmp_path, ping_interval_seconds=0.05, ping_timeout_seconds=0.05, unhealthy_after=1, silent_seconds=0.7
    )
    spec = spec_for(tmp_path)
    try:
        await launcher.launch(spec)
        await reaches(launcher, spec.instance_id, S.IN_SERVICE)
        begin = time.monotonic()
        os.kill(leader_of(spec, launcher.marker), signal.SIGSTOP)
        state = await reaches(launcher, spec.instance_id, S.STARTING, generation=2)
        assert time.monotonic() - begin > 0.5
        assert state.failure is not None
        assert "it did not answer /ping within 0.05 seconds" in state.failure
    finally:
        await launcher.close(hurry=True)


# --- stopping ------------------------------------------------------------------------------------------


async def test_a_stop_lets_the_container_finish(launcher: ProcessLauncher, tmp_path: Path) -> None:
    script = (
        "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: (print('goodbye'), sys.exit(0)))\n"
        + HEALTHY
    )
    spec = spec_for(tmp_path, script)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    await launcher.stop(spec.instance_id)
    log = log_of(spec)
    assert "\ngoodbye\n" in log
    assert log.endswith("exited with status 0\n")


STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"


async def test_a_stubborn_container_is_killed_after_the_timeout(tmp_path: Path) -> None:
    launcher = process_launcher(tmp_path, stop_timeout_seconds=0.3)
    spec = spec_for(tmp_path, STUBBORN + HEALTHY)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    await launcher.stop(spec.instance_id)
    assert living(launcher.marker, spec.instance_id) == []
    assert "did not go; it is killed" in log_of(spec)
    await launcher.close()


async def test_hurry_shortens_a_stop_that_is_under_way(tmp_path: Path) -> None:
    launcher = process_launcher(tmp_path, stop_timeout_seconds=100)
    spec = spec_for(tmp_path, STUBBORN + HEALTHY)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    slow = asyncio.create_task(launcher.stop(spec.instance_id))
    await reaches(launcher, spec.instance_id, S.STOPPING)
    await launcher.stop(spec.instance_id, hurry=True)
    await slow
    await launcher.close()


async def test_nothing_of_an_instance_survives_its_stop(
    launcher: ProcessLauncher, tmp_path: Path, mailbox: Mailbox
) -> None:
    script = (
        "import os, signal\n"
        "if os.fork() == 0:\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    grandchild = os.fork()\n"
        "    if grandchild == 0:\n"
        "        os.setsid()\n"
        f"    {say(mailbox, 'os.getpid()')}"
        "    while True: signal.pause()\n"
    ) + HEALTHY
    spec = spec_for(tmp_path, script)
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, S.IN_SERVICE)
    pids = {int(await mailbox.line()), int(await mailbox.line())}
    assert len({os.getsid(pid) for pid in pids}) == 2
    assert pids < {process.pid for process in living(launcher.marker, spec.instance_id)}
    await launcher.stop(spec.instance_id)
    assert living(launcher.marker, spec.instance_id) == []
    wait_for_death(pids)


async def test_a_stop_during_the_backoff_needs_no_waiting(launcher: ProcessLauncher, tmp_path: Path) -> None:
    spec = spec_for(tmp_path, "raise SystemExit(1)", keep_trying=True)
    await launcher.launch(spec)
    await until(
        launcher,
        lambda latest: any(s.status is S.RESTARTING and s.restarts >= 4 for s in latest.values()),
    )
    async with asyncio.timeout(5):
        await launcher.stop(spec.instance_id)


# --- housekeeping --------------------------------------------------------------------------------------


async def test_of_a_long_log_the_newest_part_is_kept(tmp_path: Path) -> None:
    launcher = process_launcher(tmp_path, log_limit_bytes=20_000)
    spec = spec_for(tmp_path, "[print(n, 'x' * 90) for n in range(1000)]")
    await launcher.launch(spec)
    state = await reaches(launcher, spec.instance_id, S.FAILED)
    await launcher.close(hurry=True)
    kept = log_of(replace(spec, log_file=f"{spec.log_file}.1")) + log_of(spec)
    assert "\n999 x" in kept
    assert 10_000 < len(kept) < 21_000
    assert state.log_tail[-1].startswith("999 x")


# --- the death of the process that hosts the launcher --------------------------------------------------

HOST = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from launchers.containers import process_launcher, reaches, spec_for
from moorage.launchers.base import InstanceStatus
from moorage.launchers.process import become_subreaper

async def main():
    directory = Path(sys.argv[1])
    become_subreaper()
    launcher = process_launcher(directory, ping_interval_seconds=0.1)
    spec = spec_for(directory, Path(sys.argv[3]).read_text(), instance_id="i-1")
    await launcher.launch(spec)
    await reaches(launcher, "i-1", InstanceStatus.IN_SERVICE)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def start_host(directory: Path, script: str) -> "subprocess.Popen[str]":
    file = directory / "container.py"
    file.write_text(script)
    tests = str(Path(__file__).parent.parent)
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(directory), tests, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    assert host.stdout.readline() == "ready\n"
    return host


def kill_host(host: "subprocess.Popen[str]") -> None:
    host.kill()
    host.wait()
    assert host.stdout is not None
    host.stdout.close()


async def test_the_leader_dies_with_its_host_and_a_sweep_finds_the_rest(
    tmp_path: Path, mailbox: Mailbox
) -> None:
    script = (
        f"import os, signal\nif os.fork() == 0:\n    {say(mailbox, 'os.getpid()')}    signal.pause()\n"
        + HEALTHY
    )
    host = start_host(tmp_path, script)
    leader = next(p.pid for p in living(str(tmp_path), "i-1") if p.pid == p.session)
    child = int(await mailbox.line())
    kill_host(host)
    wait_for_death([leader])
    assert [process.pid for process in living(str(tmp_path), "i-1")] == [child]
    assert sweep(str(tmp_path / "another")) == 0
    assert sweep(str(tmp_path)) == 1
    assert living(str(tmp_path), "i-1") == []


async def test_adopted_orphans_are_collected(tmp_path: Path, mailbox: Mailbox) -> None:
    script = (
        "import os\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        f"        {say(mailbox, 'os.getpid()')}"
        "    os._exit(0)\n"
        "os.wait()\n"
    ) + HEALTHY
    host = start_host(tmp_path, script)
    try:
        orphan = int(await mailbox.line())
        async with asyncio.timeout(20):
            while Path(f"/proc/{orphan}").exists():
                await asyncio.sleep(0.05)
        assert [p for p in procfs.processes() if p.parent == host.pid and p.is_dead] == []
    finally:
        kill_host(host)
        sweep(str(tmp_path))
