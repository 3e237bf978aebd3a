"""Settings: defaults, then a TOML file, then `MOORAGE_*` variables, then the command line; later wins.

Every setting is a field of `Settings` with its help text; `docs/settings.md` lists them all (a test compares).
A wrong value is a `SettingsError` that names the key, where it came from and what is accepted.
"""

import dataclasses
import hashlib
import json
import os
import re
import shlex
import tempfile
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MIB = 1024 * 1024
_LONGEST_SOCKET_DIR = 80
"""A Unix socket's path may have 107 bytes; longer data directories keep their sockets elsewhere."""

MAX_CONTROL_PLANE_BODY_BYTES = MIB
"""The largest body of a request that is not an invocation and not for the S3. No setting: an operation's members
cannot fill it."""

CONTAINER_CREDENTIALS_PATH = "/_moorage/container-credentials/"
"""Below it containers ask for the credentials of their execution roles."""

_LEAST_SECRET = 16


class SettingsError(Exception):
    """A setting is unknown or has a value that is not accepted."""


def setting(
    default: Any, help: str, *, least: float | None = None, most: float | None = None, secret: bool = False
) -> Any:
    """A field of `Settings`; the value of a `secret` one is not shown."""
    metadata = {"help": help, "least": least, "most": most}
    if isinstance(default, dict):
        return field(default_factory=dict, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8080, "Port to listen on; 0 takes a free one.", least=0, most=65535)
    data_dir: Path = setting(Path("moorage-data"), "Directory of all state: database, objects, logs.")
    workers: int = setting(1, "Gateway processes; one a core is enough.", least=1, most=256)
    region: str = setting("us-east-1", "The region that ARNs name; signatures may be scoped to any.")
    account_id: str = setting("000000000000", "The account of the root access key: 12 digits.")
    database_url: str = setting(
        "",
        "URL of the state: postgresql://… or sqlite:///…; empty: SQLite in the data directory.",
        secret=True,
    )
    database_timeout_seconds: float = setting(
        3.0, "How long an answer of the database is waited for.", least=0.1, most=60
    )
    lease_seconds: float = setting(
        10.0, "After how long another controller takes over from one that is gone.", least=1, most=600
    )
    secret_key: str = setting(
        "",
        "Key that seals secrets at rest and session tokens; empty: one in the data directory.",
        secret=True,
    )
    audit_log: str = setting(
        "", "File of the audit log; empty: audit.log in the data directory; off: there is none."
    )
    metrics_token: str = setting(
        "", "Bearer token that opens /_moorage/metrics; empty: signed requests only.", secret=True
    )
    metrics_buckets: str = setting(
        "auto",
        "Buckets of the latencies' histograms in /_moorage/metrics: all, coarse, none; auto: by how many there are.",
    )
    strict_roles: bool = setting(
        False,
        "Whether the execution role of a model must exist; else one that does not stands for its own account.",
    )
    framework_versions: str = setting(
        "installed",
        "Frameworks of the built-in model host: those installed, or pinned: installed anew as the image's tag says.",
    )
    pass_package_settings: bool = setting(
        False,
        "Whether models are given the server's PIP_* and UV_* variables, which may hold passwords of indexes.",
    )
    s3_endpoint: str = setting("", "URL of an S3 to use; empty: the embedded one in the data directory.")
    tls_certificate: str = setting("", "PEM file of the certificate chain; with it, clients speak TLS.")
    tls_key: str = setting("", "PEM file of the certificate's key.")
    max_body_bytes: int = setting(6 * MIB, "Largest request body of an invocation.", least=1, most=2**31)
    max_unverified_bytes: int = setting(
        256 * MIB,
        "Most bytes that a gateway process keeps of bodies before their signatures are verified.",
        least=MIB,
        most=2**50,
    )
    max_unverified_bytes_per_client: int = setting(
        64 * MIB, "The same of the bodies from one IP address; 0: any number.", least=0, most=2**50
    )
    max_response_bytes: int = setting(6 * MIB, "Largest response body of an invocation.", least=1, most=2**31)
    max_header_bytes: int = setting(32 * 1024, "Largest request head, in bytes.", least=1024, most=MIB)
    max_headers: int = setting(128, "Most headers in one request.", least=16, most=10_000)
    max_connections: int = setting(
        16_384, "Most connections to a gateway process; 0: any number.", least=0, most=2**20
    )
    max_connections_per_client: int = setting(
        1000, "Most connections from one IP address to a gateway process; 0: any number.", least=0, most=2**20
    )
    max_requests_per_second_per_key: float = setting(
        0.0,
        "Most requests a second of one access key to a gateway process; 0: any number.",
        least=0,
        most=1e6,
    )
    max_concurrent_requests_per_key: int = setting(
        0, "Most requests of one access key at once in a gateway process; 0: any number.", least=0, most=2**20
    )
    max_concurrent_invocations_per_instance: int = setting(
        256, "Most invocations a gateway process has inside one instance; 0: any number.", least=0, most=2**20
    )
    allow_unsigned_payload: bool = setting(
        False, "Whether an invocation without TLS may leave its body unsigned (`UNSIGNED-PAYLOAD`)."
    )
    header_timeout_seconds: float = setting(
        20.0, "Time for a request's head to arrive.", least=0.1, most=3600
    )
    body_timeout_seconds: float = setting(
        60.0, "Longest pause within a request's body.", least=0.1, most=3600
    )
    idle_timeout_seconds: float = setting(
        120.0, "How long an idle client connection is kept.", least=1, most=86400
    )
    invocation_timeout_seconds: float = setting(
        60.0,
        "Time a container has for its whole reply, or to begin a response stream.",
        least=0.05,
        most=3600,
    )
    stream_timeout_seconds: float = setting(
        480.0, "Time a container has for a whole response stream.", least=0.05, most=86400
    )
    connect_timeout_seconds: float = setting(
        5.0, "Time a container has to accept a connection.", least=0.05, most=60
    )
    container_idle_seconds: float = setting(
        2.0, "How long an idle connection to a container is reused.", least=0, most=3600
    )
    drain_timeout_seconds: float = setting(
        70.0, "How long a shutdown or an update waits for invocations in flight.", least=0, most=7200
    )
    startup_timeout_seconds: float = setting(
        480.0, "Time a container has from its start to its first good /ping.", least=1, most=3600
    )
    stop_timeout_seconds: float = setting(
        30.0, "Time between SIGTERM and SIGKILL for a container.", least=0.1, most=3600
    )
    container_user: str = setting(
        "",
        "Who containers run as: NAME or UID[:GID]; empty: as root one for each variant, else the server's.",
    )
    container_isolation: str = setting(
        "auto", "A file system view of their own for containers: auto, bubblewrap (it must work) or none."
    )
    container_network: str = setting(
        "outbound",
        "Network of containers: outbound (their own, may call out), isolated (their own, may not) or host.",
    )
    container_readable_paths: str = setting(
        "", "What else containers under bubblewrap may read: absolute paths with colons between."
    )
    container_max_open_files: int = setting(
        65536, "Most open files of a container's process; 0: no other limit.", least=0, most=2**20
    )
    container_max_processes: int = setting(
        4096, "Most processes and threads of a container's user; 0: no other limit.", least=0, most=2**22
    )
    container_max_memory_bytes: int = setting(
        0, "Most memory a container's process may allocate; 0: no other limit.", least=0, most=2**50
    )
    container_max_file_bytes: int = setting(
        0, "Largest file a container may write; 0: no other limit, else from 256 MiB.", least=0, most=2**50
    )
    container_shm_bytes: int = setting(
        1024 * MIB, "Size of a container's /dev/shm; 0: half of the memory.", least=0, most=2**50
    )
    container_log_bytes: int = setting(
        64 * MIB, "How much of its newest output each instance's log keeps.", least=64 * 1024, most=2**40
    )
    container_log_bytes_per_second: int = setting(
        MIB, "Output of a container beyond this is left out of its log.", least=1024, most=2**30
    )
    max_model_bytes: int = setting(50 * 1024 * MIB, "Largest unpacked model, in bytes.", least=1, most=2**50)
    deleted_endpoint_keep_seconds: float = setting(
        7 * 86400.0,
        "How long the logs of instances that are gone are kept, at most 1 GiB an account.",
        least=0,
        most=31_536_000,
    )
    disk_reserve_bytes: int = setting(
        1024 * MIB, "What models leave free of the disk of the data directory.", least=0, most=2**50
    )
    async_concurrency: int = setting(
        4,
        "Asynchronous invocations an instance is given at once, unless MaxConcurrentInvocationsPerInstance says it.",
        least=1,
        most=1000,
    )
    async_max_deaths: int = setting(
        3, "Containers that an asynchronous invocation may take with it before it fails.", least=1, most=100
    )
    async_storage_patience_seconds: float = setting(
        300.0,
        "How long an asynchronous invocation waits for an S3 that does not answer.",
        least=0,
        most=86400,
    )
    async_require_content_length: bool = setting(
        False, "Whether an asynchronous invocation fails when its container replies in chunks, as on AWS."
    )
    async_keep_seconds: float = setting(
        86400.0, "How long finished asynchronous invocations are remembered.", least=0, most=31_536_000
    )
    images: dict[str, tuple[str, ...]] = setting(
        {}, "Image catalogue: glob of an image name to the command line that stands for it."
    )
    sns_endpoint: str = setting(
        "", "URL of the SNS that has the topics of asynchronous inference; REGION in it is the topic's."
    )
    webhooks: dict[str, str] = setting(
        {}, "Glob of a topic's ARN to the URL that gets its messages instead of SNS.", secret=True
    )
    webhook_secret: str = setting("", "Key that signs what webhooks get; empty: no signature.", secret=True)

    @property
    def limits_keys(self) -> bool:
        """Whether there are limits to what the owner of one access key may ask."""
        return self.max_requests_per_second_per_key > 0 or self.max_concurrent_requests_per_key > 0

    @property
    def run_dir(self) -> Path:
        """Sockets and process files of the running server."""
        path = self.data_dir / "run"
        if len(str(path)) <= _LONGEST_SOCKET_DIR:
            return path
        digest = hashlib.sha256(str(path).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"moorage-{os.getuid()}-{digest}"

    @property
    def log_dir(self) -> Path:
        """The logs of instances."""
        return self.data_dir / "logs"

    @property
    def credentials_file(self) -> Path:
        return self.data_dir / "credentials"

    @property
    def secret_key_file(self) -> Path:
        return self.data_dir / "secret-key"

    @property
    def audit_file(self) -> Path | None:
        if self.audit_log == "off":
            return None
        return Path(self.audit_log) if self.audit_log else self.data_dir / "audit.log"

    @property
    def controller_socket(self) -> Path:
        return self.run_dir / "controller.sock"

    @property
    def feed_socket(self) -> Path:
        return self.run_dir / "feed.sock"

    @property
    def launcher_socket(self) -> Path:
        return self.run_dir / "launcher.sock"

    @property
    def outbound_socket(self) -> Path:
        return self.run_dir / "outbound.sock"

    @property
    def resolv_conf_file(self) -> Path:
        """What containers with a network of their own find as /etc/resolv.conf."""
        return self.run_dir / "resolv.conf"

    @property
    def s3_socket(self) -> Path:
        return self.run_dir / "s3.sock"

    @property
    def url_file(self) -> Path:
        """Holds the URL of the running server, for the command line tools."""
        return self.run_dir / "url"

    @property
    def internal_url_file(self) -> Path:
        """Holds the URL for our command line tools on this machine: another one when clients speak TLS."""
        return self.run_dir / "internal-url"

    @property
    def shown_certificate_file(self) -> Path:
        """Holds the path of the running server's certificate chain, for `moorage env`; empty without TLS."""
        return self.run_dir / "certificate"

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'moorage.db'}"

    def to_json(self) -> str:
        """For a child process; `from_json` reads it back."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Settings":
        return _build(json.loads(text), "the parent process")


def load(
    *, file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read settings from a TOML file (if any), `MOORAGE_*` variables and explicit overrides.

    Raises:
        SettingsError: an unknown key, or a value of the wrong type or range.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values |= dataclasses.asdict(_build(tomllib.loads(file.read_text()), str(file)))
        except OSError as error:
            raise SettingsError(f"cannot read the settings file {file}: {error.strerror}") from error
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{file} is not valid TOML: {error}") from error
    names = {f"MOORAGE_{name.upper()}": name for name in _FIELDS if name not in _TABLES}
    from_environment = {names[key]: value for key, value in environment.items() if key in names}
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    for source, layer in (("the environment (MOORAGE_*)", from_environment), ("the command line", given)):
        values |= {key: _convert(key, value, source) for key, value in layer.items()}
    settings = Settings(**values)
    if bool(settings.tls_certificate) is not bool(settings.tls_key):
        raise SettingsError("settings 'tls_certificate' and 'tls_key' belong together: give both, or neither")
    return dataclasses.replace(settings, data_dir=settings.data_dir.absolute())


_FIELDS = {f.name: f for f in dataclasses.fields(Settings)}


def _build(raw: Mapping[str, Any], source: str) -> Settings:
    return Settings(**{key: _convert(key, value, source) for key, value in raw.items()})


def _convert(key: str, value: Any, source: str) -> Any:
    if key not in _FIELDS:
        raise SettingsError(f"unknown setting {key!r} in {source}; known: {', '.join(sorted(_FIELDS))}")
    if key in _TABLES:
        return _TABLES[key](value, source)
    spec = _FIELDS[key]
    kind: Any = type(spec.default)
    try:
        converted: Any = _convert_bool(value) if kind is bool else kind(value)
    except (TypeError, ValueError):
        raise SettingsError(f"setting {key!r} in {source} must be {_describe(spec)}, not {value!r}") from None
    least, most = spec.metadata["least"], spec.metadata["most"]
    if (least is not None and converted < least) or (most is not None and converted > most):
        raise SettingsError(f"setting {key!r} in {source} must be {_describe(spec)}, not {value!r}")
    if key == "account_id" and not (len(converted) == 12 and converted.isdigit()):
        raise SettingsError(f"setting 'account_id' in {source} must be 12 digits, not {value!r}")
    if key in ("secret_key", "metrics_token") and converted and len(converted) < _LEAST_SECRET:
        raise SettingsError(f"setting {key!r} in {source} must have at least {_LEAST_SECRET} characters")
    if key == "metrics_token" and not (converted.isascii() and converted.isprintable()):
        raise SettingsError(f"setting 'metrics_token' in {source} must be of printable ASCII characters")
    if key in _CHECKS and not _CHECKS[key][0](converted):
        raise SettingsError(f"setting {key!r} in {source} must be {_CHECKS[key][1]}, not {value!r}")
    if key == "sns_endpoint" and converted and not _is_http_url(converted):
        raise SettingsError(
            f"setting 'sns_endpoint' in {source} must be a URL (http:// or https://), not {value!r}"
        )
    return converted


def _convert_bool(value: Any) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if not isinstance(value, bool):
        raise ValueError(value)
    return value


def _convert_images(value: Any, source: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict):
        raise SettingsError(f"setting 'images' in {source} must be a table of glob = command line")
    images = {}
    for glob, command in value.items():
        argv = shlex.split(command) if isinstance(command, str) else command
        if not isinstance(argv, list | tuple) or not argv or not all(isinstance(a, str) for a in argv):
            raise SettingsError(
                f"images[{glob!r}] in {source} must be a command line (a string or a list of strings)"
            )
        images[glob] = tuple(argv)
    return images


def _convert_webhooks(value: Any, source: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise SettingsError(f"setting 'webhooks' in {source} must be a table of glob = URL")
    for glob, url in value.items():
        if not isinstance(url, str) or not _is_http_url(url):
            # The value is not repeated: a webhook's URL is often all that protects it.
            raise SettingsError(f"webhooks[{glob!r}] in {source} must be a URL (http:// or https://)")
    return dict(value)


_TABLES = {"images": _convert_images, "webhooks": _convert_webhooks}
"""Settings that are tables: in the file only."""


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_LEAST_FILE_BYTES = 256 * MIB
"""More than the log of a container, which is a file that it writes."""

_CHECKS: dict[str, tuple[Callable[[Any], object], str]] = {
    "container_user": (
        re.compile(r"|[a-z_][a-z0-9_.-]*\$?(:\d{1,10})?|\d{1,10}(:\d{1,10})?").fullmatch,
        "a user's name or UID[:GID]",
    ),
    "framework_versions": (frozenset({"installed", "pinned"}).__contains__, "installed or pinned"),
    "container_isolation": (
        frozenset({"auto", "bubblewrap", "none"}).__contains__,
        "auto, bubblewrap or none",
    ),
    "container_network": (
        frozenset({"outbound", "isolated", "host"}).__contains__,
        "outbound, isolated or host",
    ),
    "container_readable_paths": (
        lambda text: all(path.startswith("/") for path in text.split(":") if path),
        "absolute paths with colons between",
    ),
    "metrics_buckets": (
        frozenset({"auto", "all", "coarse", "none"}).__contains__,
        "auto, all, coarse or none",
    ),
    "container_max_file_bytes": (
        lambda size: size == 0 or size >= _LEAST_FILE_BYTES,
        f"0 or at least {_LEAST_FILE_BYTES}",
    ),
}


def _describe(spec: "dataclasses.Field[Any]") -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", Path: "a path"}
    least, most = spec.metadata["least"], spec.metadata["most"]
    span = f" from {least:g} to {most:g}" if least is not None and most is not None else ""
    return names[type(spec.default)] + span
