"""The launch chain is the server's alone: nothing that a model says acts before the container's own command does."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from moorage.launchers import bubblewrap, cgroups, seccomp
from moorage.launchers.base import InstanceState, InstanceStatus
from moorage.launchers.bubblewrap import View
from moorage.launchers.isolation import Isolation, Network
from moorage.launchers.process import ProcessLauncher

from .containers import leader_of, process_launcher, spec_for, until

IS_ROOT = os.geteuid() == 0
NO_VIEW = bubblewrap.why_unusable(View(), uid=None)
SYSTEM_PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable

SHARED_OBJECT = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
unsigned la_version(unsigned version) { return version; }
__attribute__((constructor)) static void loaded(void) {
    char exe[256] = "", line[512];
    ssize_t size = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (size > 0) exe[size] = 0;
    int file = open(EVIDENCE, O_WRONLY | O_APPEND);
    if (file < 0) return;
    snprintf(line, sizeof line, "uid=%d exe=%s\n", getuid(), exe);
    if (write(file, line, strlen(line)) < 0) return;
    close(file);
}
"""

SCRIPT = "#!/bin/sh\necho uid=$(id -u) exe=$0 >> %s\nexec /usr/bin/false\n"
PYTHON = "import os\nopen(%r, 'a').write(f'uid={os.getuid()} exe=sitecustomize\\n')\n"

HEALTHY_HERE = """
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def ground() -> Iterator[Path]:
    """A directory that every user reaches, with a file that everyone may append to, from inside of a view too."""
    with tempfile.TemporaryDirectory(dir="/var/lib") as directory:
        path = Path(directory)
        path.chmod(0o711)
        (path / "evidence").touch()
        (path / "evidence").chmod(0o666)
        yield path


def every_variable(traps: str, model: str) -> dict[str, str]:
    """What the dynamic loader, libc, shells, Python and bubblewrap read, each pointing at a trap."""
    return {
        # the dynamic loader and libc
        "LD_PRELOAD": f"{traps}/trap.so",
        "LD_AUDIT": f"{traps}/trap.so",
        "LD_LIBRARY_PATH": f"{traps}:{model}",
        "LD_BIND_NOW": "1",
        "LD_PROFILE": "libc.so.6",
        "LD_DEBUG": "files",
        "LD_DEBUG_OUTPUT": f"{traps}/ld-debug",
        "GLIBC_TUNABLES": "glibc.malloc.check=3",
        "GCONV_PATH": traps,
        "LOCPATH": traps,
        "NLSPATH": f"{traps}/%N",
        "RES_OPTIONS": "debug",
        "LOCALDOMAIN": "evil.example",
        "HOSTALIASES": f"{traps}/hosts",
        "MALLOC_TRACE": f"{traps}/malloc-trace",
        "TMPDIR": traps,
        # shells
        "PATH": f"{traps}:{model}:/usr/bin:/bin",
        "ENV": f"{traps}/script",
        "BASH_ENV": f"{traps}/script",
        "SHELLOPTS": "xtrace",
        "PS4": f"$({traps}/script)",
        "IFS": "/",
        "CDPATH": traps,
        "BASH_FUNC_test%%": f"() {{ {traps}/script; }}",
        "BASH_FUNC_exec%%": f"() {{ {traps}/script; }}",
        "PPID": "1",
        # Python
        "PYTHONPATH": traps,
        "PYTHONHOME": traps,
        "PYTHONSTARTUP": f"{traps}/sitecustomize.py",
        "PYTHONUSERBASE": traps,
        "PYTHONEXECUTABLE": f"{traps}/script",
        "PYTHONPLATLIBDIR": traps,
        "PYTHONINSPECT": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONBREAKPOINT": "sitecustomize.trap",
        "PYTHONMALLOC": "debug",
        "PYTHONTRACEMALLOC": "1",
        "PYTHONPYCACHEPREFIX": f"{traps}/pycache",
        # bubblewrap, and what it might pass on
        "HOME": traps,
        "PWD": traps,
        "XDG_RUNTIME_DIR": traps,
        "SHELL": f"{traps}/script",
        # TLS and proxies, for whatever would call out
        "OPENSSL_CONF": f"{traps}/openssl.cnf",
        "OPENSSL_MODULES": traps,
        "OPENSSL_ENGINES": traps,
    }


def set_traps(directory: Path, evidence: Path) -> None:
    directory.mkdir()
    (directory / "trap.c").write_text(SHARED_OBJECT)
    if shutil.which("cc"):
        command = ["cc", "-shared", "-fPIC", f'-DEVIDENCE="{evidence}"', "-o"]
        subprocess.run([*command, directory / "trap.so", directory / "trap.c"], check=True)
    elif os.environ.get("CI") == "true":
        pytest.fail("there is no C compiler for the trap that the dynamic loader would load")
    for name in ("script", "sh", "bwrap", "python", "python3", "env", "sleep", "test", "echo", "exec"):
        (directory / name).write_text(SCRIPT % evidence)
        (directory / name).chmod(0o755)
    (directory / "sitecustomize.py").write_text(PYTHON % str(evidence))
    (directory / "usercustomize.py").write_text(PYTHON % str(evidence))
    (directory / "openssl.cnf").write_text(".include /dev/null\n")
    for path in (directory, *directory.iterdir()):
        path.chmod(path.stat().st_mode | 0o555)


MODES = {
    "nothing": Isolation(),
    "user": Isolation(own_users=True, seccomp=seccomp.container_filter()),
    "view": Isolation(own_users=IS_ROOT, view=View() if NO_VIEW is None else None),
    "everything": Isolation(
        own_users=IS_ROOT,
        view=View(shm_bytes=2**20) if NO_VIEW is None else None,
        network=Network.ISOLATED,
        seccomp=seccomp.container_filter(),
    ),
}
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root can start processes as another user")
needs_view = pytest.mark.skipif(NO_VIEW is not None, reason=str(NO_VIEW))


@pytest.mark.parametrize(
    "mode",
    [
        "nothing",
        pytest.param("user", marks=needs_root),
        pytest.param("view", marks=needs_view),
        pytest.param("everything", marks=[needs_root, needs_view]),
    ],
)
async def test_no_variable_of_a_model_acts_outside_of_its_container(mode: str, ground: Path) -> None:
    evidence = ground / "evidence"
    traps = ground / "traps"
    set_traps(traps, evidence)
    isolation = MODES[mode]
    if isolation.view is not None:
        isolation = Isolation(
            own_users=isolation.own_users,
            view=View(readable=(ground,), shm_bytes=isolation.view.shm_bytes),
            network=isolation.network,
            seccomp=isolation.seccomp,
        )
    launcher = process_launcher(ground, isolation=isolation)
    # -E and -S: what Python itself makes of its variables, in the container, is the model's own business.
    spec = spec_for(
        ground,
        argv=(SYSTEM_PYTHON, "-E", "-S", "-c", HEALTHY_HERE),
        environment=every_variable(str(traps), "model:."),
    )
    for name in ("script", "sh", "bwrap", "python3", "trap.so", "sitecustomize.py"):
        for place in (Path(spec.base_dir), Path(spec.base_dir, "model")):
            place.mkdir(parents=True, exist_ok=True)
            if (traps / name).exists():
                shutil.copy(traps / name, place / name)
    try:
        await launcher.launch(spec)
        state = await settles(launcher, spec.instance_id)
        assert state.status is InstanceStatus.IN_SERVICE, state.failure
        leader = leader_of(spec, launcher.marker)
        outside = environment_of(leader)
        environments = [environment_of(pid) for pid in descendants(leader)]
    finally:
        await launcher.close(hurry=True)
    if isolation.view is not None:
        assert outside.keys() <= {"PATH", "LD_LIBRARY_PATH", "MOORAGE_DATA_DIR", "MOORAGE_INSTANCE_ID", "PWD"}
        assert str(traps) not in json.dumps(outside)
        assert any("LD_PRELOAD" in each for each in environments), "the container itself has them"
    seen = evidence.read_text().splitlines()
    own = f"exe={Path(SYSTEM_PYTHON).resolve()}"
    assert [line for line in seen if not line.endswith(own)] == []
    if IS_ROOT and mode != "nothing":
        assert [line for line in seen if line.startswith("uid=0 ")] == []
    if mode in ("nothing", "user") and shutil.which("cc"):
        assert seen, "the trap works where it may"
    if mode != "nothing":  # there the container itself may write to the traps
        assert [path.name for path in traps.iterdir() if path.name.startswith(("ld-debug", "malloc"))] == []


async def test_a_programs_own_directory_does_not_tempt_the_server_to_show_it(tmp_path: Path) -> None:
    """A PATH of the model's names directories of the machine; none of them is shown for that."""
    private = tmp_path / "private"
    private.mkdir()
    (private / "serve").write_text("#!/bin/sh\n")
    (private / "serve").chmod(0o755)
    arguments = bubblewrap.command(View(program="/usr/bin/bwrap"), ("serve",), base_dir="/b", keep_user=True)
    assert str(private) not in arguments


@pytest.mark.parametrize("bad", [{"X": "a\0b"}, {"A=B": "x"}, {"X": "\ud800"}])
async def test_an_environment_that_no_process_can_have_is_said(tmp_path: Path, bad: dict[str, str]) -> None:
    launcher = process_launcher(tmp_path)
    spec = spec_for(tmp_path, environment=bad)
    try:
        await launcher.launch(spec)
        state = await settles(launcher, spec.instance_id)
    finally:
        await launcher.close(hurry=True)
    assert state.status is InstanceStatus.FAILED
    assert "cannot give it its environment: " in str(state.failure)
    assert "Traceback" not in str(state.failure)


async def settles(launcher: ProcessLauncher, instance_id: str) -> InstanceState:
    """The instance's state once it is in service or has failed."""
    settled = (InstanceStatus.IN_SERVICE, InstanceStatus.FAILED)
    states = await until(
        launcher, lambda states: instance_id in states and states[instance_id].status in settled
    )
    return states[instance_id]


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def test_the_control_groups_that_there_are_can_be_used() -> None:
    """On a machine where root may make them, as in CI; elsewhere the log says what is not enforced."""
    usable, why = cgroups.find_usable(marker="/test")
    if usable is None:
        pytest.skip(why)
    group = usable.create("one", memory_bytes=2**26, processes=10)
    assert group.pids() == set()
    assert group.remove()


def test_a_server_that_was_killed_while_it_tried_control_groups_out_leaves_none() -> None:
    marker = f"/test-{os.getpid()}"
    usable, why = cgroups.find_usable(marker=marker)
    if usable is None:
        pytest.skip(why)
    left = usable.create("probe")
    cgroups.find_usable(marker=marker)
    assert not any(directory.exists() for directory in left.directories)
