"""The file that holds the root key."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moorage.auth.credentials import read_or_create_root_key, read_root_key

ACCOUNT = "123456789012"


def test_a_key_is_made_once_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    key = read_or_create_root_key(path, account_id=ACCOUNT)
    assert read_or_create_root_key(path, account_id=ACCOUNT) == key == read_root_key(path, account_id=ACCOUNT)
    assert len(key.access_key_id) == 20
    assert key.access_key_id.startswith("AKIA")
    assert len(key.secret_access_key) == 40
    assert (key.account_id, key.principal_arn) == (ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    key = read_or_create_root_key(path, account_id=ACCOUNT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert key.secret_access_key not in repr(path)
    assert [file.name for file in tmp_path.iterdir()] == ["credentials"]


def test_the_sdks_read_the_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    path = tmp_path / "credentials"
    key = read_or_create_root_key(path, account_id=ACCOUNT)
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    read = botocore.session.Session().get_credentials()
    assert (read.access_key, read.secret_key) == (key.access_key_id, key.secret_access_key)


def test_starts_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            path = tmp_path / str(number)
            keys = set(pool.map(lambda _, p=path: read_or_create_root_key(p, account_id=ACCOUNT), range(8)))
            assert len(keys) == 1


@pytest.mark.parametrize("text", ["", "[default]\n", "[other]\naws_access_key_id = a\n", "nonsense"])
def test_a_file_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials"
    path.write_text(text)
    with pytest.raises(ValueError, match="credentials"):
        read_or_create_root_key(path, account_id=ACCOUNT)
