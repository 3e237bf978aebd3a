"""What may stand in `database_url`, and that passwords are not repeated."""

import pytest
from sqlalchemy import make_url

from moorage.storage.database_url import name_of, read_url
from moorage.storage.failures import UnusableDatabase


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgres://u:p@h/n", "postgresql+asyncpg://u:p@h/n"),
        ("postgresql://u:p@h:1/n", "postgresql+asyncpg://u:p@h:1/n"),
        ("postgresql+asyncpg://h/n", "postgresql+asyncpg://h/n"),
        ("postgresql://h/n?sslmode=require", "postgresql+asyncpg://h/n?ssl=require"),
        ("sqlite:////a/b.db", "sqlite+aiosqlite:////a/b.db"),
        ("sqlite+aiosqlite:///b.db", "sqlite+aiosqlite:///b.db"),
    ],
)
def test_urls_get_the_driver_that_there_is(text: str, expected: str) -> None:
    assert read_url(text).render_as_string(hide_password=False) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "://secret",
        "postgresql:secret@host",
        "postgresql://u:secret@host:port/n",
        "mysql://u:secret@h/n",
        "postgresql+psycopg://u:secret@h/n",
        "http://u:secret@h/n",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_other_urls_are_refused_without_repeating_them(text: str) -> None:
    with pytest.raises(UnusableDatabase) as error:
        read_url(text)
    assert "secret" not in str(error.value)
    assert str(error.value).startswith("The setting database_url ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:secret@h:1/n?password=secret", "the database n at h:1"),
        ("postgresql://u@/n?host=/run/postgresql", "the database n at /run/postgresql:5432"),
        ("postgresql://", "the database  at localhost:5432"),
        ("sqlite:////a/b.db", "the SQLite database /a/b.db"),
    ],
)
def test_names_have_no_user_and_no_password(text: str, expected: str) -> None:
    assert name_of(make_url(text)) == expected


def test_a_driver_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moorage.storage.database_url.find_spec", lambda name: None)
    with pytest.raises(
        UnusableDatabase, match=r"asyncpg is not installed: pip install 'moorage\[postgres\]'"
    ):
        read_url("postgres://u:secret@h/n")
    assert read_url("sqlite:///a.db").drivername == "sqlite+aiosqlite"
