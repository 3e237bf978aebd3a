"""What a fenced-in container has, and what supervising one is like: the same as any other."""

import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from moorage.launchers import bubblewrap, isolation, procfs
from moorage.launchers.base import InstanceSpec, InstanceStatus
from moorage.launchers.bubblewrap import View
from moorage.launchers.isolation import Isolation, IsolationError, Limits, Network, User
from moorage.launchers.process import ProcessLauncher

from .containers import HEALTHY, SERVER, living, log_of, process_launcher, reaches, spec_for

IS_ROOT = os.geteuid() == 0
NO_VIEW = bubblewrap.why_unusable(View(), uid=None)
OTHER = 2**30 + 12345
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
LIMITS = Limits(open_files=100, processes=50, memory_bytes=2**30, file_bytes=2**28)

needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can start processes as another user")
needs_view = pytest.mark.skipif(NO_VIEW is not None, reason=str(NO_VIEW))


@pytest.fixture
def passable() -> Iterator[Path]:
    """A directory that other users reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        path.chmod(0o711)
        yield path


@pytest.fixture(
    params=[
        pytest.param("view", marks=needs_view),
        pytest.param(
            "user", marks=[needs_root, pytest.mark.skipif(not SYSTEM_PYTHON, reason="no Python in /usr")]
        ),
    ]
)
async def fenced(request: pytest.FixtureRequest, passable: Path) -> AsyncIterator[ProcessLauncher]:
    """A launcher with a view and (as root) users of their own, and one with the users alone."""
    view = View(hidden=(passable,)) if request.param == "view" else None
    fence = Isolation(own_users=IS_ROOT, view=view, limits=LIMITS)
    launcher = process_launcher(passable, isolation=fence)
    yield launcher
    await launcher.close(hurry=True)


def fenced_spec(launcher: ProcessLauncher, script: str, **changes: Any) -> InstanceSpec:
    python = sys.executable if launcher.isolation.view else SYSTEM_PYTHON
    return spec_for(Path(launcher.marker), script, argv=(python, "-S", "-c", script), **changes)


async def told_by(launcher: ProcessLauncher, script: str) -> Any:
    """What the script leaves in `answer`, from inside of a container that then serves."""
    report = "\nimport json; print('told:' + json.dumps(answer), flush=True)\n"
    spec = fenced_spec(launcher, SERVER + script + report + "serve()")
    await launcher.launch(spec)
    await reaches(launcher, spec.instance_id, InstanceStatus.IN_SERVICE)
    (line,) = [line for line in log_of(spec).splitlines() if line.startswith("told:")]
    return json.loads(line.removeprefix("told:"))


async def test_a_container_has_no_privileges_and_nothing_of_the_servers(fenced: ProcessLauncher) -> None:
    status = await told_by(
        fenced,
        "status = dict(line.split(':\\t', 1) for line in open('/proc/self/status').read().splitlines())\n"
        "answer = {**status, 'files': sorted(os.listdir('/proc/self/fd')), "
        "'names': sorted(os.environ), 'ids': [os.getuid(), os.getgid(), os.getgroups()]}",
    )
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapEff"], 16) == 0
    assert status["files"] == ["0", "1", "2", "3"]  # 3 looks at the others
    sessions = {process.session for process in procfs.processes() if process.marker == fenced.marker}
    assert sessions and os.getsid(0) not in sessions  # from outside: within the view's own pids it is 0
    assert not [name for name in status["names"] if name.startswith(("AWS_ACCESS", "AWS_SECRET", "AWS_SESS"))]
    if IS_ROOT:
        uid, gid, groups = status["ids"]
        assert uid == gid > 2**30
        assert groups == [] or groups == [gid]


async def test_a_container_writes_where_the_contract_says_and_nowhere_else(fenced: ProcessLauncher) -> None:
    answer = await told_by(
        fenced,
        "base = os.environ['SAGEMAKER_BASE_DIR']\nanswer = {}\n"
        "for path in ('model/x', 'x', 'output/x', os.environ['TMPDIR'] + '/x', '/usr/x', '/etc/x', '/dev/shm/x'):\n"
        "    try:\n"
        "        open(os.path.join(base, path), 'w').close()\n"
        "        answer[path] = True\n"
        "    except OSError:\n"
        "        answer[path] = False\n",
    )
    assert [path for path, written in answer.items() if written and not path.startswith("/")] == ["output/x"]
    absolute = {path: written for path, written in answer.items() if path.startswith("/")}
    assert not absolute["/usr/x"]
    assert not absolute["/etc/x"]
    assert [written for path, written in absolute.items() if path.endswith(("tmp/x", "shm/x"))] == [
        True,
        True,
    ]


async def test_limits_are_kept(fenced: ProcessLauncher) -> None:
    answer = await told_by(
        fenced,
        "import signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "answer = {}\n"
        "def attempt(name, what):\n"
        "    try:\n"
        "        what(); answer[name] = 'done'\n"
        "    except Exception as error:\n"
        "        answer[name] = type(error).__name__\n"
        "def many_files():\n"
        "    files = []\n"
        "    for _ in range(200): files.append(open('/dev/null'))\n"
        "def large_file():\n"
        "    with open(os.environ['TMPDIR'] + '/large', 'wb') as file:\n"
        "        file.seek(2**28); file.write(b'x')\n"
        "def many_processes():\n"
        "    children = []\n"
        "    try:\n"
        "        for _ in range(100):\n"
        "            child = os.fork()\n"
        "            if not child: signal.pause()\n"
        "            children.append(child)\n"
        "    finally:\n"
        "        for child in children: os.kill(child, 9); os.waitpid(child, 0)\n"
        "def much_memory(): bytearray(2**31)\n"
        "for each in (many_files, large_file, many_processes, much_memory): attempt(each.__name__, each)\n"
        "import resource; answer['core'] = resource.getrlimit(resource.RLIMIT_CORE)\n",
    )
    assert answer == {
        "many_files": "OSError",
        "large_file": "OSError",
        "many_processes": "BlockingIOError",
        "much_memory": "MemoryError",
        "core": [0, 0],
    }


@needs_view
async def test_a_view_holds_no_other_processes_and_no_other_files(passable: Path) -> None:
    secret = passable / "secret"
    secret.write_text("x")
    launcher = process_launcher(
        passable, isolation=Isolation(own_users=IS_ROOT, view=View(hidden=(passable,)))
    )
    try:
        answer = await told_by(
            launcher,
            f"answer = [os.path.exists('{secret}'), os.path.exists('/proc/{os.getpid()}'), os.listdir('/opt/ml'),"
            " len([pid for pid in os.listdir('/proc') if pid.isdigit()]), os.environ['SAGEMAKER_BASE_DIR']]",
        )
    finally:
        await launcher.close(hurry=True)
    exists, server_exists, listing, processes, base_dir = answer
    assert not exists
    assert not server_exists or processes <= 3  # a small pid may be one of its own
    assert sorted(listing) == ["model", "output", "tmp"]
    assert processes <= 3
    assert base_dir == "/opt/ml"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import sys; sys.exit(3)", "exited with status 3 before"),
        ("import os; os.kill(os.getpid(), 9)", "was killed by signal 9 (SIGKILL)"),
        ("import os, resource; os.abort()", "was killed by signal 6 (SIGABRT)"),
    ],
)
async def test_how_it_ended_is_told_as_without_a_fence(
    fenced: ProcessLauncher, script: str, says: str
) -> None:
    spec = fenced_spec(fenced, script)
    await fenced.launch(spec)
    state = await reaches(fenced, spec.instance_id, InstanceStatus.FAILED)
    assert says in str(state.failure)


async def test_a_container_is_asked_to_stop_before_it_is_killed(fenced: ProcessLauncher) -> None:
    goodbye = (
        SERVER + "import signal, time\n"
        "def leave(*_):\n    time.sleep(0.3); print('goodbye', flush=True); os._exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\nserve()"
    )
    spec = fenced_spec(fenced, goodbye)
    await fenced.launch(spec)
    await reaches(fenced, spec.instance_id, InstanceStatus.IN_SERVICE)
    await fenced.stop(spec.instance_id)
    assert "goodbye" in log_of(spec)
    assert "exited with status 0" in log_of(spec)


async def test_nothing_is_left_of_a_container_that_hides_its_processes(fenced: ProcessLauncher) -> None:
    hiding = (
        SERVER + "hidden, says_so = os.pipe()\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    os.dup2(says_so, 1)\n"
        "    os.execve('/bin/sh', ['sh', '-c', 'echo; sleep 1000; :'], {**os.environ, 'HIDDEN': '1'})\n"
        "os.read(hidden, 1)\n"
        "serve()"
    )
    spec = fenced_spec(fenced, hiding)
    await fenced.launch(spec)
    await reaches(fenced, spec.instance_id, InstanceStatus.IN_SERVICE)
    assert len(living(fenced.marker, spec.instance_id)) >= 2
    await fenced.stop(spec.instance_id, hurry=True)
    assert living(fenced.marker, spec.instance_id) == []


async def test_a_container_may_write_to_its_log_by_name(fenced: ProcessLauncher) -> None:
    spec = fenced_spec(fenced, "open('/dev/stderr', 'a').write('by name\\n')\n" + HEALTHY)
    await fenced.launch(spec)
    await reaches(fenced, spec.instance_id, InstanceStatus.IN_SERVICE)
    assert "by name" in log_of(spec)


async def test_what_others_could_write_is_not_used_again(fenced: ProcessLauncher) -> None:
    if not IS_ROOT:
        pytest.skip("only root can make a directory of another user")
    cache = Path(fenced.marker) / "cache"
    cache.mkdir()
    (cache / "trap").touch()
    spec = fenced_spec(fenced, HEALTHY, cache_dir=str(cache))
    await fenced.launch(spec)
    await reaches(fenced, spec.instance_id, InstanceStatus.IN_SERVICE)
    assert list(cache.iterdir()) == []
    user = fenced.isolation.user_of(spec)
    assert user is not None
    assert cache.stat().st_uid == user.uid


def decided(directory: Path, **changes: Any) -> Isolation:
    values: dict[str, Any] = {
        "container_user": "",
        "mode": "auto",
        "wanted_network": Network.HOST,
        "network": Network.HOST,
        "limits": Limits(),
        "shm_bytes": 0,
        "readable_paths": (),
        "data_dir": directory,
        "run_dir": directory / "run",
        "resolv_conf_file": directory / "resolv.conf",
    }
    return isolation.decide(**(values | changes))


def test_instances_of_one_variant_share_a_user_and_no_others_do(tmp_path: Path) -> None:
    fence = Isolation(own_users=True)
    first, second = spec_for(tmp_path), spec_for(tmp_path)
    other = spec_for(tmp_path, variant_name="Other")
    assert fence.user_of(first) == fence.user_of(second)
    assert fence.user_of(first) != fence.user_of(other)
    assert Isolation(user=User(uid=5, gid=6)).user_of(first) == User(uid=5, gid=6)
    assert Isolation().user_of(first) is None


def test_the_data_directory_is_closed_whatever_it_was(passable: Path) -> None:
    (passable / "moorage.db").touch(0o644)
    (passable / "s3").mkdir(0o755)
    passable.chmod(0o755)
    decided(passable)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in passable.iterdir()}
    assert (modes["moorage.db"], modes["s3"]) == (0o600, 0o700)
    assert stat.S_IMODE(passable.stat().st_mode) & 0o066 == 0


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"container_user": "nobody-of-that-name"}, "this machine has no such user"),
        pytest.param(
            {"container_user": str(OTHER)},
            "only root can",
            marks=pytest.mark.skipif(IS_ROOT, reason="is root"),
        ),
    ],
)
def test_what_cannot_be_had_is_said(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(IsolationError, match=says):
        decided(tmp_path, **changes)


def test_bubblewrap_that_is_asked_for_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(IsolationError, match=r"container_isolation is bubblewrap, but .* is not installed"):
        decided(tmp_path, mode="bubblewrap")


@needs_root
def test_a_user_that_cannot_reach_the_data_directory_is_told(passable: Path) -> None:
    (passable / "closed").mkdir(0o700)
    data_dir = passable / "closed" / "data"
    data_dir.mkdir()
    with pytest.raises(IsolationError, match="no other user can reach"):
        decided(data_dir, container_user=str(OTHER), mode="none")


def test_what_is_not_isolated_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "closed").mkdir(0o700)
    data_dir = tmp_path / "closed" / "data"
    data_dir.mkdir()
    assert not decided(data_dir, mode="none").is_fence
    assert "containers are not isolated" in caplog.text


def test_a_view_shows_what_a_command_names_and_not_the_directory_around_the_data(tmp_path: Path) -> None:
    program = tmp_path / "project" / "serve.py"
    program.parent.mkdir()
    program.touch()
    library = tmp_path / "library"
    library.mkdir()
    data_dir = program.parent / "data"
    data_dir.mkdir()
    arguments = bubblewrap.command(
        View(hidden=(data_dir,)),
        ("python3", str(program), f"--library={library}"),
        base_dir=str(data_dir / "instances" / "i-1"),
        keep_user=True,
    )
    shown = [arguments[n + 1] for n, word in enumerate(arguments) if word == "--ro-bind-try"]
    assert str(program) in shown
    assert str(library) in shown
    assert str(program.parent) not in shown
    assert str(data_dir) not in shown
