"""What a container is told of the server, and of the credentials of its role."""

from pathlib import Path
from typing import Any

import pytest

from moorage.launchers.networks import Place
from moorage.launchers.process import ProcessLauncher
from moorage.launchers.server_access import ServerAccess

from .containers import spec_for

SECRET = "s" * 43
PLACE = Place(key="k", port=8080, safe_ports="21000-21999")
PATH = f"/_moorage/container-credentials/i-1/{SECRET}"
OWN = ServerAccess(url="http://198.18.0.1:8080")
MACHINES = ServerAccess(url="http://127.0.0.1:8080", credentials_url="http://127.0.0.1:8081")
NAMES = (
    "AWS_ENDPOINT_URL",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
)


def environment(folder: Path, access: ServerAccess | None, **changes: Any) -> dict[str, str]:
    launcher = ProcessLauncher(marker=str(folder), region="eu-central-1", access=access)
    spec = spec_for(folder, "true", **{"instance_id": "i-1", "credentials_secret": SECRET, **changes})
    return launcher.environment_of(spec, PLACE)


@pytest.mark.parametrize(
    ("access", "changes", "told"),
    [
        (OWN, {}, ("http://198.18.0.1:8080", PATH, None, "eu-central-1", "eu-central-1")),
        (
            MACHINES,
            {},
            ("http://127.0.0.1:8080", None, f"http://127.0.0.1:8081{PATH}", "eu-central-1", "eu-central-1"),
        ),
        (OWN, {"network_isolation": True}, (None, None, None, "eu-central-1", "eu-central-1")),
        (OWN, {"credentials_secret": ""}, (None, None, None, "eu-central-1", "eu-central-1")),
        (None, {}, (None, None, None, "eu-central-1", "eu-central-1")),
        (
            OWN,
            {"environment": {"AWS_REGION": "us-west-2", "AWS_ENDPOINT_URL": "https://other"}},
            ("https://other", PATH, None, "us-west-2", "us-west-2"),
        ),
        (
            OWN,
            {"environment": {"AWS_DEFAULT_REGION": "us-west-2"}},
            ("http://198.18.0.1:8080", PATH, None, "eu-central-1", "us-west-2"),
        ),
    ],
)
def test_where_the_server_and_the_credentials_are(
    tmp_path: Path, access: ServerAccess | None, changes: dict[str, Any], told: tuple[str | None, ...]
) -> None:
    found = environment(tmp_path, access, **changes)
    assert tuple(found.get(name) for name in NAMES) == told


def test_neither_is_called_by_way_of_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert "NO_PROXY" not in environment(tmp_path, OWN)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("no_proxy", "example.com")
    found = environment(tmp_path, OWN)
    assert found["NO_PROXY"] == "198.18.0.1,169.254.170.2"
    assert found["no_proxy"] == "example.com,198.18.0.1,169.254.170.2"
