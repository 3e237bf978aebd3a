"""Sealed values, and the file that holds the key."""

import base64
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moorage.auth.sealing import Sealer, UnsealError, create_sealer, read_or_create_secret_key

SEALER = Sealer(b"k" * 32)


def test_what_was_sealed_comes_back() -> None:
    sealed = SEALER.seal(b"s3cret", purpose="a")
    assert SEALER.unseal(sealed, purpose="a") == b"s3cret"
    assert Sealer(b"k" * 32).unseal(sealed, purpose="a") == b"s3cret"
    assert b"s3cret" not in base64.b64decode(sealed)
    assert SEALER.seal(b"s3cret", purpose="a") != sealed


def test_another_key_or_purpose_does_not_unseal() -> None:
    sealed = SEALER.seal(b"s3cret", purpose="a")
    for sealer, purpose in ((SEALER, "b"), (Sealer(b"l" * 32), "a")):
        with pytest.raises(UnsealError):
            sealer.unseal(sealed, purpose=purpose)


def test_any_changed_byte_is_noticed() -> None:
    raw = base64.b64decode(SEALER.seal(b"s3cret", purpose="a"))
    for place in range(len(raw)):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        with pytest.raises(UnsealError):
            SEALER.unseal(base64.b64encode(changed).decode(), purpose="a")
    for length in range(len(raw)):
        with pytest.raises(UnsealError):
            SEALER.unseal(base64.b64encode(raw[:length]).decode(), purpose="a")


@pytest.mark.parametrize("text", ["", "x", "nonsense", "é", "AQ==", "A" * 5000])
def test_what_is_not_sealed_is_refused(text: str) -> None:
    with pytest.raises(UnsealError):
        SEALER.unseal(text, purpose="a")


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        Sealer(b"k" * 15)


def test_the_file_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    key = read_or_create_secret_key(path)
    assert len(key) == 43
    assert read_or_create_secret_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["secret-key"]


def test_starts_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            path = tmp_path / str(number)
            assert len(set(pool.map(lambda _, p=path: read_or_create_secret_key(p), range(8)))) == 1


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    path.write_text("\n")
    with pytest.raises(ValueError, match="secret-key holds no key"):
        read_or_create_secret_key(path)


def test_a_key_of_the_settings_needs_no_file(tmp_path: Path) -> None:
    path = tmp_path / "secret-key"
    sealed = create_sealer(secret_key="k" * 32, path=path).seal(b"a", purpose="p")
    assert SEALER.unseal(sealed, purpose="p") == b"a"
    assert not path.exists()
    sealed = create_sealer(secret_key="", path=path).seal(b"a", purpose="p")
    assert create_sealer(secret_key="", path=path).unseal(sealed, purpose="p") == b"a"


def test_the_cipher_is_imported_when_it_is_needed() -> None:
    program = "import sys, moorage.auth.sealing; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
