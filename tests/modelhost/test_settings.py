import logging
from pathlib import Path

import pytest

from moorage.modelhost.errors import StartupError
from moorage.modelhost.settings import Settings


def test_defaults_are_those_of_a_container() -> None:
    settings = Settings.from_environment({})
    assert (settings.host, settings.port) == ("0.0.0.0", 8080)  # noqa: S104
    assert settings.model_dir == Path("/opt/ml/model")
    assert settings.code_dir is None
    assert (settings.program, settings.program_is_required) == ("inference.py", False)
    assert (settings.workers, settings.timeout_seconds) == (1, 60)
    assert settings.default_accept is None
    assert settings.max_request_bytes is None


def test_a_timeout_of_zero_is_none() -> None:
    assert Settings.from_environment({"SAGEMAKER_MODEL_SERVER_TIMEOUT": "0"}).timeout_seconds is None


def test_the_log_level_is_a_number_or_a_name() -> None:
    assert Settings.from_environment({"SAGEMAKER_CONTAINER_LOG_LEVEL": "10"}).log_level == logging.DEBUG
    assert Settings.from_environment({"SAGEMAKER_CONTAINER_LOG_LEVEL": "error"}).log_level == logging.ERROR


@pytest.mark.parametrize(
    "name",
    [
        "SAGEMAKER_BIND_TO_PORT",
        "SAGEMAKER_MODEL_SERVER_WORKERS",
        "SAGEMAKER_MODEL_SERVER_TIMEOUT",
        "SAGEMAKER_MAX_REQUEST_SIZE",
        "SAGEMAKER_CONTAINER_LOG_LEVEL",
    ],
)
def test_a_value_that_makes_no_sense_is_named(name: str) -> None:
    with pytest.raises(StartupError, match=f"{name} is 'many': set it to"):
        Settings.from_environment({name: "many"})


def test_workers_cannot_be_none() -> None:
    with pytest.raises(StartupError, match="SAGEMAKER_MODEL_SERVER_WORKERS"):
        Settings.from_environment({"SAGEMAKER_MODEL_SERVER_WORKERS": "0"})


def test_multi_model_is_refused() -> None:
    with pytest.raises(StartupError, match="SAGEMAKER_MULTI_MODEL"):
        Settings.from_environment({"SAGEMAKER_MULTI_MODEL": "true"})


def test_a_local_submit_directory_is_the_code(tmp_path: Path) -> None:
    (tmp_path / "model" / "code").mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environ = {"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_SUBMIT_DIRECTORY": str(elsewhere)}
    assert Settings.from_environment(environ).code_dir == elsewhere


@pytest.mark.parametrize("submitted", ["s3://bucket/sourcedir.tar.gz", "/opt/ml/model/code-is-not-here"])
def test_any_other_submit_directory_yields_to_the_code_of_the_model(tmp_path: Path, submitted: str) -> None:
    environ = {"SAGEMAKER_BASE_DIR": str(tmp_path), "SAGEMAKER_SUBMIT_DIRECTORY": submitted}
    with pytest.raises(StartupError, match="SAGEMAKER_SUBMIT_DIRECTORY"):
        Settings.from_environment(environ)
    (tmp_path / "model" / "code").mkdir(parents=True)
    assert Settings.from_environment(environ).code_dir == tmp_path / "model" / "code"


def test_sm_model_dir_wins(tmp_path: Path) -> None:
    assert Settings.from_environment({"SM_MODEL_DIR": str(tmp_path)}).model_dir == tmp_path
