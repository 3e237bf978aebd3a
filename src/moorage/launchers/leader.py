"""The leader of an instance: the process that stands for the container's PID 1, from its start to its end.

* It is started by `subprocess` without `preexec_fn` (which is unsafe beside threads, and slow: it forbids vfork),
  with a `launch_chain` in front of the container's command. That costs some 15 ms and no thread, and 12 ms more with
  a view. It dies with this process (PR_SET_PDEATHSIG); the kernel ties that to the *thread* that forked, so call this
  in the main thread.
* With a network of its own the chain is started in a new network namespace, which lasts as long as the instance's
  processes do. The container's command waits until the namespace is complete (`Leader.release`).
* Its death is noticed through a pidfd, at once and without polling. It stays a zombie until `collect`, so that its
  numbers (pid, process group, session) cannot be given to others while its group is still being killed.
"""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

from moorage import network_namespace
from moorage.launchers import bubblewrap, launch_chain
from moorage.launchers.base import InstanceSpec
from moorage.launchers.cgroups import Cgroup
from moorage.launchers.isolation import Isolation, User
from moorage.launchers.log_collector import InstanceLog
from moorage.outbound.keeper_client import KeptNetwork


class CannotStart(Exception):
    """The container's process could not even be started; the text says why."""


class Leader:
    """A running leader. `gone` has its return code as soon as it is dead; `collect` then lets it go.

    `network` names the network namespace of its own, if it has one; `cgroup` are its control groups, if any.
    """

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        port: int,
        *,
        in_view: bool,
        network: str,
        cgroup: Cgroup | None,
        gate: int,
    ) -> None:
        self.pid = process.pid
        self.port = port
        self.network = network
        self.cgroup = cgroup
        self.started = time.monotonic()
        self.healthy_since: float | None = None
        self._process = process
        self._in_view = in_view
        self._gate = gate
        self._loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[int] = self._loop.create_future()
        self._descriptor = os.pidfd_open(process.pid)
        self._loop.add_reader(self._descriptor, self._on_death)

    def release(self) -> None:
        """Let the container's command begin. Until then the launch chain waits before it, and ends when we do."""
        with suppress(BrokenPipeError):
            os.write(self._gate, b"\n")

    def age(self) -> float:
        return time.monotonic() - self.started

    def healthy_seconds(self) -> float | None:
        return None if self.healthy_since is None else time.monotonic() - self.healthy_since

    def collect(self) -> None:
        os.close(self._gate)
        self._process.wait()

    def _on_death(self) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # a look; collects nothing
        assert seen is not None
        if not self.gone.done():
            status = seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status
            self.gone.set_result(bubblewrap.returncode(status) if self._in_view else status)


def start_leader(
    spec: InstanceSpec,
    environment: Mapping[str, str],
    *,
    generation: int,
    port: int,
    log: InstanceLog,
    isolation: Isolation,
    kept: KeptNetwork | None = None,
) -> Leader:
    """Start the container's command in a session of its own, its output going to the log, in the network that a
    keeper made for it if there is one.

    Raises:
        CannotStart: there is no such command, or no process can be had.
    """
    user = isolation.user_of(spec)
    argv = [word.replace("{port}", str(port)) for word in spec.argv]
    with ExitStack() as descriptors, ExitStack() as undo:
        try:
            log.open()
            _furnish(spec, user)
            _check_command(argv, spec.base_dir)
            output = log.pipe(None if user is None else (user.uid, user.gid))
            descriptors.callback(os.close, output)
            cgroup = isolation.create_cgroup(f"{spec.instance_id}-{generation}")
            if cgroup is not None:
                undo.callback(cgroup.remove)
            prepared = launch_chain.in_memory(launch_chain.document(spec, argv, environment, user, isolation))
            descriptors.callback(os.close, prepared)
            waits, gate = os.pipe2(os.O_CLOEXEC)
            descriptors.callback(os.close, waits)
            undo.callback(os.close, gate)
            passed_on = [prepared, waits, *(kept.descriptors if kept is not None else ())]
            seccomp = None
            if isolation.view is not None and isolation.seccomp:
                seccomp = launch_chain.in_memory(isolation.seccomp)
                descriptors.callback(os.close, seccomp)
                passed_on.append(seccomp)
            chain = launch_chain.command(spec, argv, user, isolation, cgroup, prepared, waits, seccomp, kept)
            own = kept is None and isolation.has_own_network(spec)
            with network_namespace.new_namespace() if own else nullcontext():
                process = subprocess.Popen(
                    chain,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    env=launch_chain.environment(environment),
                    pass_fds=passed_on,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            raise CannotStart(_sentence(error)) from error
        try:
            leader = Leader(
                process,
                port,
                in_view=isolation.view is not None,
                network=kept.name if kept else network_namespace.reference(process.pid) if own else "",
                cgroup=cgroup,
                gate=gate,
            )
        except OSError as error:
            process.kill()
            process.wait()
            raise CannotStart(f"no descriptor for its process: {error.strerror}") from error
        undo.pop_all()
        return leader


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _furnish(spec: InstanceSpec, user: User | None) -> None:
    """Make the directories that a container finds, and give it what it may write: no more than that.

    At a later start the container has been at work here, so nothing is followed and nothing changes its owner.
    """
    base_dir = Path(spec.base_dir)
    base_dir.mkdir(parents=True, exist_ok=True)
    if user is not None:
        os.chown(base_dir, 0, user.gid, follow_symlinks=False)
        base_dir.chmod(0o750)
    for name in ("model", "output", "tmp"):
        with suppress(FileExistsError):
            (base_dir / name).mkdir()
            if user is not None and name != "model":
                os.chown(base_dir / name, user.uid, user.gid, follow_symlinks=False)
    if spec.cache_dir:
        _furnish_cache(Path(spec.cache_dir), user)


def _furnish_cache(directory: Path, user: User | None) -> None:
    uid = os.geteuid() if user is None else user.uid
    if directory.exists() and directory.lstat().st_uid != uid:
        shutil.rmtree(directory)  # of a start under other settings; whoever could write it is not trusted now
    with suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        if user is not None:
            os.chown(directory, user.uid, user.gid, follow_symlinks=False)


def _check_command(argv: Sequence[str], base_dir: str) -> None:
    """Raises `CannotStart` if there is no such program: sooner and clearer than the kernel would say it.

    A name without a directory is looked for by the container itself, in the PATH that its environment may have set.
    """
    if not argv:
        raise CannotStart("its command line is empty")
    command = argv[0]
    if "/" in command:
        file = Path(base_dir) / command
        if not file.exists():
            raise CannotStart(f"its command {command} does not exist")
        if file.is_dir() or not os.access(file, os.X_OK):
            raise CannotStart(f"its command {command} is not an executable file")
