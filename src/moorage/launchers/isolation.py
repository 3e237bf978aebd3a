"""What stands between a container and everything else: decided once, when the server starts.

Fences, each of which may be missing on a machine; `docs/security.md` says what each holds back.

* **A user of its own** (`User`), where the server runs as root: one for each production variant, from numbers that no
  account has, or the one that the operator names. The kernel then keeps a container from what is not its own.
* **A view of its own** (`bubblewrap`): a container sees no files and no processes but those it needs.
* **A network of its own** (`network_namespace`), where the server runs as root: nobody else reaches its port, and it
  reaches nobody else's.
* **Control groups of its own** (`cgroups`), where they can be made: its limits hold for all of it together.

Limits of each process, and a filter of system calls (`seccomp`), are set in any case.
"""

import hashlib
import logging
import os
import pwd
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from moorage.launchers import bubblewrap, cgroups, seccomp
from moorage.launchers.base import InstanceSpec
from moorage.launchers.bubblewrap import View
from moorage.launchers.cgroups import Cgroup, Cgroups
from moorage.outbound.policy import name_servers, resolv_conf

_log = logging.getLogger(__name__)

_FIRST_OWN_USER: Final = 2**30
_OWN_USERS: Final = 2**30
"""Numbers that neither accounts nor the ranges handed out to user namespaces use in practice."""
_CHECK_SECONDS: Final = 20.0
_PRIVATE: Final = 0o700
_ENTERABLE: Final = 0o711


class IsolationError(Exception):
    """The isolation that was asked for cannot be had here; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    uid: int
    gid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of each process of a container; `processes` of all that its user has. 0: as the server's own."""

    open_files: int = 0
    processes: int = 0
    memory_bytes: int = 0
    file_bytes: int = 0


class Network(StrEnum):
    """Which network containers have, and how far it reaches."""

    HOST = "host"  # the machine's, with a port of its own for each container
    OUTBOUND = "outbound"  # one of its own, from which it may call the outside
    ISOLATED = "isolated"  # one of its own, from which it may call nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How every container of a launcher is fenced in. The default is not at all.

    `user` is the one of all containers; with `own_users` each production variant has its own. `view` is None
    where no bubblewrap is used, `cgroups` where no control groups can be made. `seccomp` is a filter of system calls.
    With `keeps_networks` a process of the server's keeps the networks, since the launcher may not make them itself.
    """

    user: User | None = None
    own_users: bool = False
    view: View | None = None
    network: Network = Network.HOST
    keeps_networks: bool = False
    cgroups: Cgroups | None = None
    seccomp: bytes = b""
    limits: Limits = field(default_factory=Limits)

    def has_own_network(self, spec: InstanceSpec) -> bool:
        """A model that asks for network isolation has one of its own, or is not started (`OSError`)."""
        if spec.network_isolation and self.network is Network.HOST:
            raise OSError(
                "its model has EnableNetworkIsolation, which needs a network of its own (setting container_network), "
                "and this server cannot make one or is told not to"
            )
        return self.network is not Network.HOST

    def create_cgroup(self, name: str) -> Cgroup | None:
        """The control groups of one start of an instance.

        Raises:
            OSError: they cannot be made.
        """
        if self.cgroups is None:
            return None
        return self.cgroups.create(
            name, memory_bytes=self.limits.memory_bytes, processes=self.limits.processes
        )

    def user_of(self, spec: InstanceSpec) -> User | None:
        """The same for all instances of a variant, at every start: they share a cache directory."""
        if not self.own_users:
            return self.user
        name = f"{spec.account_id}/{spec.endpoint_name}/{spec.variant_name}"
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
        uid = _FIRST_OWN_USER + number % _OWN_USERS
        return User(uid=uid, gid=uid)

    @property
    def is_fence(self) -> bool:
        """Whether there is any; also whether the kernel counts a container's processes apart from the server's."""
        return self.user is not None or self.own_users or self.view is not None

    def path_inside(self, spec: InstanceSpec, value: str) -> str:
        """How a container sees one of its own paths; any other text as it is."""
        if self.view is not None:
            for outside, inside in (
                (spec.base_dir, bubblewrap.BASE_DIR),
                (spec.cache_dir, bubblewrap.CACHE_DIR),
            ):
                if outside and (value == outside or value.startswith(f"{outside}/")):
                    return inside + value.removeprefix(outside)
        return value

    def home_of(self, spec: InstanceSpec) -> dict[str, str]:
        """Variables for a user that has no home. The name is for programs that make directories of it."""
        if not self.is_fence:
            return {}
        temporary = bubblewrap.TEMPORARY_DIR if self.view is not None else str(Path(spec.base_dir, "tmp"))
        return {"HOME": temporary, "TMPDIR": temporary, "USER": "model", "LOGNAME": "model"}


NO_ISOLATION: Final = Isolation()


def decide(
    *,
    container_user: str,
    mode: str,
    wanted_network: Network,
    network: Network,
    keeps_networks: bool = False,
    why_no_network: str = "",
    limits: Limits,
    shm_bytes: int,
    readable_paths: Sequence[Path],
    data_dir: Path,
    run_dir: Path,
    resolv_conf_file: Path,
) -> Isolation:
    """Find out what this machine can do, say in the log what that leaves open, and close the data directory.

    `mode` is `auto`, `bubblewrap` or `none`. Takes some 50 ms: it starts a program the way containers are started.
    `network` is the one that can be had, of another process if it `keeps_networks`, and `why_no_network` why it is
    not the wanted one. `resolv_conf_file` is made, for containers that call out of a network of their own.

    Raises:
        IsolationError: what the settings ask for cannot be had here.
    """
    user, own_users = _users(container_user)
    fenced = user is not None or own_users
    view, why_none = None, "container_isolation is none"
    if mode != "none":
        view = _view(hidden=(data_dir, run_dir), readable=tuple(readable_paths), shm_bytes=shm_bytes)
        why_none = bubblewrap.why_unusable(view, uid=_sample(user).uid if fenced else None) or ""
        if why_none:
            if mode == "bubblewrap":
                raise IsolationError(f"container_isolation is bubblewrap, but {why_none}.")
            view = None
    _close(data_dir, enterable=fenced and view is None)
    if fenced and view is None:
        obstacle = _obstacle(_sample(user), data_dir)
        if obstacle and user is not None:
            raise IsolationError(f"Containers cannot run as the user {container_user}: {obstacle}.")
        if obstacle:
            own_users = fenced = False
            _close(data_dir, enterable=False)
            _log.warning("containers run as root, since %s", obstacle)
    if keeps_networks and fenced:
        network = Network.HOST
        why_no_network = "a network that another process keeps cannot be entered as another user"
    network, why_no_network = _network(wanted_network, network, why_no_network, has_view=view is not None)
    if network is Network.OUTBOUND and view is not None:
        resolv_conf_file.write_text(resolv_conf(_machines_resolv_conf()))
        resolv_conf_file.chmod(0o644)
        view = replace(view, resolver=resolv_conf_file)
    groups, why_no_groups = cgroups.find_usable(marker=str(data_dir))
    if groups is not None and (left := groups.sweep()):
        _log.warning("killed %d processes that an earlier run had left in control groups", left)
    isolation = Isolation(
        user=user,
        own_users=own_users,
        view=view,
        network=network,
        keeps_networks=keeps_networks and network is not Network.HOST,
        cgroups=groups,
        seccomp=seccomp.container_filter(),
        limits=limits,
    )
    _tell(isolation, why_none)
    _tell_of_network(network, why_no_network)
    _tell_of_groups(isolation, why_no_groups)
    return isolation


def _view(*, hidden: tuple[Path, ...], readable: tuple[Path, ...], shm_bytes: int) -> View:
    view = View(hidden=hidden, readable=readable, shm_bytes=shm_bytes)
    if view.program and shm_bytes and not bubblewrap.has_size_option(view.program):
        _log.warning("containers' /dev/shm is not limited: this bubblewrap is older than 0.7")
        return replace(view, shm_bytes=0)
    return view


def _network(wanted: Network, network: Network, why_not: str, *, has_view: bool) -> tuple[Network, str]:
    """The network that containers get, and why it is not the one that is wanted (empty: it is)."""
    if network is Network.OUTBOUND and not has_view:
        servers = name_servers(_machines_resolv_conf())
        if servers and all(server.startswith("127.") for server in servers):
            network = Network.HOST
            why_not = "without bubblewrap they see the machine's name server, which is at a loopback address"
    if wanted is Network.ISOLATED and network is Network.HOST:
        raise IsolationError(f"container_network is isolated, but {why_not}.")
    return network, why_not


def _machines_resolv_conf() -> str:
    try:
        return Path("/etc/resolv.conf").read_text(errors="replace")
    except OSError:
        return ""


def _users(setting: str) -> tuple[User | None, bool]:
    """The one user of all containers (None: the server's own), and whether each variant has its own instead."""
    if not setting:
        return None, os.geteuid() == 0 and _are_mapped(_FIRST_OWN_USER, _OWN_USERS)
    user = _lookup(setting)
    if user.uid == os.geteuid() and user.gid == os.getegid():
        return None, False
    if os.geteuid() != 0:
        raise IsolationError(
            f"container_user is {setting}, but only root can start containers as another user: "
            "leave it empty, or start the server as root."
        )
    return user, False


def _sample(user: User | None) -> User:
    return user or User(uid=_FIRST_OWN_USER, gid=_FIRST_OWN_USER)


def _lookup(setting: str) -> User:
    name, _, group = setting.partition(":")
    try:
        if not name.isdigit():
            entry = pwd.getpwnam(name)
            return User(uid=entry.pw_uid, gid=int(group) if group else entry.pw_gid)
        uid = int(name)
        if group:
            return User(uid=uid, gid=int(group))
        try:
            return User(uid=uid, gid=pwd.getpwuid(uid).pw_gid)
        except KeyError:
            return User(uid=uid, gid=uid)
    except (KeyError, OverflowError):
        raise IsolationError(
            f"container_user is {setting}, but this machine has no such user: name one, or give numbers (uid:gid)."
        ) from None


def _are_mapped(first: int, count: int) -> bool:
    """Whether these user and group numbers exist here: in a user namespace most do not."""
    for kind in ("uid_map", "gid_map"):
        try:
            lines = Path("/proc/self", kind).read_text().splitlines()
        except OSError:
            return False
        ranges = [(int(start), int(length)) for start, _, length in (line.split() for line in lines)]
        if not any(start <= first and first + count <= start + length for start, length in ranges):
            return False
    return True


def _close(data_dir: Path, *, enterable: bool) -> None:
    """Everything in the data directory is the server's alone. Containers may pass through to what is theirs."""
    passage = ("instances", "environments")
    for name in passage:
        (data_dir / name).mkdir(mode=_PRIVATE, exist_ok=True)
    for entry in os.scandir(data_dir):
        if entry.is_symlink():
            continue
        mode = _ENTERABLE if enterable and entry.name in passage else _PRIVATE
        with suppress(FileNotFoundError):
            Path(entry.path).chmod(mode if entry.is_dir() else 0o600)
    data_dir.chmod(_ENTERABLE if enterable else _PRIVATE)


def _obstacle(user: User, data_dir: Path) -> str | None:
    """Why that user could not run a container that needs Python and its own directory; None if it could."""
    needs = {
        str(data_dir / "instances"): ["/bin/sh", "-c", f"cd {shlex.quote(str(data_dir / 'instances'))}"],
        f"the Python {sys.executable}": [sys.executable, "-c", "import ssl, moorage.modelhost.supervision"],
    }
    for needed, program in needs.items():
        try:
            done = subprocess.run(
                program,
                user=user.uid,
                group=user.gid,
                extra_groups=(),
                cwd="/",
                timeout=_CHECK_SECONDS,
                capture_output=True,
                check=False,
            )
            unreachable = done.returncode != 0
        except PermissionError:
            unreachable = True
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"no process can be started as another user ({error})"
        if unreachable:
            return (
                f"no other user can reach {needed}: open the directories above it (chmod o+x), "
                "put it elsewhere, or install bubblewrap"
            )
    return None


def _tell_of_network(network: Network, why_none: str) -> None:
    if network is Network.ISOLATED:
        _log.info("containers have a network of their own, and reach nobody")
    elif network is Network.OUTBOUND:
        _log.info("containers have a network of their own, and reach the outside")
    else:
        _log.warning(
            "containers share the machine's network: a container's port is believed to be its own only while its own "
            "processes listen on it (%s)",
            why_none or "container_network is host",
        )


def _tell_of_groups(isolation: Isolation, why_missing: str) -> None:
    if isolation.cgroups is None:
        _log.warning(
            "limits hold for each process of a container, not for all of it, and not for files in memory: %s",
            why_missing,
        )
    elif why_missing:
        _log.warning(
            "containers have control groups for %s only: %s", isolation.cgroups.controllers, why_missing
        )


def _tell(isolation: Isolation, why_no_view: str) -> None:
    fenced = isolation.user is not None or isolation.own_users
    who = "a user of their own" if fenced else "the server's own user"
    if isolation.view is not None:
        _log.info("containers run under bubblewrap, as %s", who)
    elif fenced:
        _log.warning(
            "containers run as %s, but see the machine's files that everyone may read, and its processes: %s",
            who,
            why_no_view,
        )
    else:
        _log.warning(
            "containers are not isolated: they can read all that the server can, its keys among it (%s)",
            why_no_view,
        )
