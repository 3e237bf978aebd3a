"""Where a model's files are looked for, and what is said when they lie elsewhere."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from moorage.modelhost import workspace
from moorage.modelhost.settings import Settings

from .hosts import Host, Starter

ECHO = "def model_fn(model_dir): return None\ndef predict_fn(data, model): return data\n"


def laid_out(hosts: Starter, files: Mapping[str, str | bytes], **environ: Any) -> Host:
    base = hosts.base()
    for name, content in files.items():
        path = base / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return hosts.start(**environ)


@pytest.mark.parametrize("family", ["generic", "scikit-learn", "pytorch", "huggingface"])
def test_a_program_beside_the_model_is_found(hosts: Starter, family: str) -> None:
    host = laid_out(hosts, {"inference.py": ECHO, "weights.bin": b"x"}, MOORAGE_MODEL_FAMILY=family)
    assert host.wait_ready().invoke("[1]").status == 200


def test_the_program_in_code_goes_before_that_beside_the_model(hosts: Starter) -> None:
    other = ECHO.replace("return data", "return 'root'")
    host = laid_out(hosts, {"inference.py": other, "code/inference.py": ECHO}).wait_ready()
    assert host.invoke("[1]").text == "[1]"


def test_modules_of_both_directories_can_be_imported(hosts: Starter) -> None:
    program = """
import beside
import inside
import package.part
def model_fn(model_dir): return beside.A + inside.B + package.part.C
def predict_fn(data, model): return model
"""
    files = {
        "beside.py": "A = 'a'",
        "package/__init__.py": "",
        "package/part.py": "C = 'c'",
        "code/inside.py": "B = 'b'",
        "code/inference.py": program,
    }
    assert laid_out(hosts, files).wait_ready().invoke("1").text == '"abc"'


def test_where_the_code_cannot_be_written_the_working_directory_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has what is in both directories, by links."""
    model = tmp_path / "model"
    (model / "code").mkdir(parents=True)
    (model / "labels.txt").write_text("labels")
    (model / "code" / "vocabulary.txt").write_text("words")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != model / "code")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_environment({"SM_MODEL_DIR": str(model)})
    for _ in range(2):  # a worker, and the one that replaces it
        workspace.enter(settings)
        read = [Path(name).read_text() for name in ("labels.txt", "vocabulary.txt", "code/vocabulary.txt")]
        assert read == ["labels", "words", "words"]
        Path("written").write_text("here")
    assert not (model / "code" / "written").exists()


def test_hidden_files_are_no_models(hosts: Starter) -> None:
    sentence = laid_out(hosts, {"._model.joblib": b"Mac OS X"}).wait_failed()
    assert "There is nothing to serve" in sentence
    assert "no file" in sentence


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"model.tar.gz": b""}, "model.tar.gz is an archive inside of the archive"),
        ({"mine/model.joblib": b"", "mine/x": b""}, "all is in the directory mine/; pack what is in it"),
        ({"predict.py": b"", "weights": b""}, "name it in SAGEMAKER_PROGRAM (predict.py)"),
        ({"weights": b""}, "add code/inference.py with a model_fn, or a model saved as *.joblib"),
    ],
)
def test_what_is_found_instead_is_told(hosts: Starter, files: dict[str, bytes], expected: str) -> None:
    assert expected in laid_out(hosts, files).wait_failed()
