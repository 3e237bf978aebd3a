"""What stands between a container and everything else: decided once, when the server starts.

Two fences, either of which may be missing on a machine; `docs/security.md` says what each holds back.

* **A user of its own** (`User`), where the server runs as root: one for each production variant, from numbers that no
  account has, or the one that the operator names. The kernel then keeps a container from what is not its own.
* **A view of its own** (`bubblewrap`): a container sees no files and no processes but those it needs.

Resource limits are set in either case.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from moorage.launchers import bubblewrap
from moorage.launchers.base import InstanceSpec
from moorage.launchers.bubblewrap import View

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How every container of a launcher is fenced in. The default is not at all.

    `user` is the one of all containers; with `own_users` each production variant has its own. `view` is None
    where no bubblewrap is used.
    """

    user: User | None = None
    own_users: bool = False
    view: View | None = None
    limits: Limits = field(default_factory=Limits)

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
    limits: Limits,
    readable_paths: Sequence[Path],
    data_dir: Path,
    run_dir: Path,
) -> Isolation:
    """Find out what this machine can do, say in the log what that leaves open, and close the data directory.

    `mode` is `auto`, `bubblewrap` or `none`. Takes some 50 ms: it starts a program the way containers are started.

    Raises:
        IsolationError: what the settings ask for cannot be had here.
    """
    user, own_users = _users(container_user)
    fenced = user is not None or own_users
    view, why_none = None, "container_isolation is none"
    if mode != "none":
        view = View(hidden=(data_dir, run_dir), readable=tuple(readable_paths))
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
    isolation = Isolation(user=user, own_users=own_users, view=view, limits=limits)
    _tell(isolation, why_none)
    return isolation


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
        f"the Python {sys.executable}": [sys.executable, "-c", "import ssl, moorage.modelhost.front"],
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
