"""Which certificates SDKs have to be told of."""

import shutil
from pathlib import Path

import pytest
from botocore.httpsession import where

from moorage.cli.certificates import is_public, is_root
from moorage.cli.environment import authority_file
from moorage.config import Settings
from moorage.runtime.supervisor import is_loopback, warn_of_plain_http
from tests.serve.test_tls import make_certificate

URL = "https://127.0.0.1:8443"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on this machine to make certificates with")
    return tmp_path


def running(folder: Path, certificate: Path | str) -> Settings:
    settings = Settings(data_dir=folder)
    settings.run_dir.mkdir()
    settings.url_file.write_text(URL)
    settings.shown_certificate_file.write_text(str(certificate))
    return settings


def test_one_that_nobody_else_has_issued_is_what_sdks_are_given(folder: Path) -> None:
    certificate, _ = make_certificate(folder / "a", "a")
    assert not is_public(certificate)
    assert is_root(certificate)
    assert authority_file(running(folder, certificate), URL) == str(certificate)


def test_a_chain_that_lacks_its_authority_is_complained_of(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    authority = make_certificate(folder / "authority", "authority")
    certificate, _ = make_certificate(folder / "a", "a", issuer=authority)
    assert not is_root(certificate)
    settings = running(folder, certificate)
    assert authority_file(settings, URL) == ""
    assert "Set AWS_CA_BUNDLE" in capsys.readouterr().err
    certificate.write_text(certificate.read_text() + authority[0].read_text())
    assert authority_file(settings, URL) == str(certificate)


def test_one_of_a_public_authority_needs_nothing(folder: Path) -> None:
    first, end, _ = Path(where()).read_text().partition("-----END CERTIFICATE-----\n")
    chain = folder / "chain.pem"
    chain.write_text(first + end)
    assert is_public(chain)
    assert authority_file(running(folder, chain), URL) == ""


@pytest.mark.parametrize("url", [URL, "https://elsewhere:8443"])
def test_nothing_is_said_without_tls_or_of_another_server(folder: Path, url: str) -> None:
    certificate = "" if url == URL else make_certificate(folder / "a", "a")[0]
    assert authority_file(running(folder, certificate), url) == ""


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("192.0.2.1", False),
        ("example.com", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(
    host: str, expected: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert is_loopback(host) is expected
    warn_of_plain_http(Settings(host=host, tls_certificate="c", tls_key="k"))
    assert not caplog.records
    warn_of_plain_http(Settings(host=host))
    assert (f"reach {host} without TLS" in caplog.text) is not expected
