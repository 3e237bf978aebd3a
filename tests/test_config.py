from pathlib import Path

import pytest

from moorage.config import Settings, SettingsError, load


def test_the_command_line_wins_over_the_environment_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "moorage.toml"
    file.write_text('port = 1\nhost = "file"\nregion = "file"\n')
    environment = {"MOORAGE_PORT": "2", "MOORAGE_HOST": "environment", "MOORAGE_UNKNOWN": "ignored"}
    settings = load(file=file, environment=environment, overrides={"port": 3, "host": None})
    assert (settings.port, settings.host, settings.region) == (3, "environment", "file")


def test_relative_data_directories_become_absolute() -> None:
    settings = load(file=None, environment={}, overrides={"data_dir": Path("somewhere")})
    assert settings.data_dir == Path.cwd() / "somewhere"


def test_settings_survive_the_way_to_a_child_process() -> None:
    settings = load(
        file=None, environment={"MOORAGE_IDLE_TIMEOUT_SECONDS": "7.5"}, overrides={"data_dir": Path("/d")}
    )
    assert Settings.from_json(settings.to_json()) == settings


def test_images_are_command_lines(tmp_path: Path) -> None:
    file = tmp_path / "moorage.toml"
    file.write_text('[images]\n"a*" = "serve --fast \'two words\'"\n"b" = ["x", "y z"]\n')
    settings = load(file=file, environment={})
    assert settings.images == {"a*": ("serve", "--fast", "two words"), "b": ("x", "y z")}
    assert Settings.from_json(settings.to_json()).images == settings.images


def test_webhooks_are_urls_by_topic_and_no_secret_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "moorage.toml"
    file.write_text(
        'sns_endpoint = "https://sns.REGION.amazonaws.com"\n[webhooks]\n"arn:*:a" = "http://h:1/p"\n'
    )
    settings = load(
        file=file, environment={"MOORAGE_WEBHOOK_SECRET": "s3cret", "MOORAGE_WEBHOOKS": "ignored"}
    )
    assert settings.sns_endpoint == "https://sns.REGION.amazonaws.com"
    assert settings.webhooks == {"arn:*:a": "http://h:1/p"}
    assert settings.webhook_secret == "s3cret"
    assert "s3cret" not in repr(settings)
    assert "http://h:1/p" not in repr(settings)
    assert Settings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prot = 1", "unknown setting 'prot'"),
        ("port = 'x'", "setting 'port' in .* must be a whole number from 0 to 65535, not 'x'"),
        ("port = 65536", "from 0 to 65535"),
        ("account_id = '12'", "must be 12 digits"),
        ("secret_key = 'too short'", r"'secret_key' in .* must have at least 16 characters$"),
        ("images = 3", "must be a table of glob"),
        ("[images]\na = []", "must be a command line"),
        ("sns_endpoint = 'sns:4100'", "setting 'sns_endpoint' in .* must be a URL .*, not 'sns:4100'"),
        ("sns_endpoint = 'http://a:port'", "must be a URL"),
        ("webhooks = 'x'", "must be a table of glob = URL"),
        ("[webhooks]\na = 'ftp://a'", r"webhooks\['a'\] in .* must be a URL \(http:// or https://\)$"),
        ("[webhooks]\na = 3", "must be a URL"),
        ("not toml", "is not valid TOML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "moorage.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=says):
        load(file=file, environment={})


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read the settings file"):
        load(file=tmp_path / "absent.toml", environment={})


def test_sockets_of_a_long_data_directory_fit_into_their_addresses(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / ("x" * 120))
    assert all(len(str(path)) < 108 for path in (settings.controller_socket, settings.s3_socket))
    assert settings.run_dir == Settings(data_dir=tmp_path / ("x" * 120)).run_dir
