"""code/requirements.txt: installed once into an environment of its own, shared by content."""

import os
import signal
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import moorage
from moorage.modelhost import environments

from .hosts import Host, Starter, exists, wait_until

USES_TINY = """
    import tiny, sys
    def model_fn(model_dir):
        return None
    def predict_fn(data, model):
        import numpy
        return [tiny.VALUE, sys.prefix, numpy.__name__]
    """


def tiny_wheel(folder: Path, value: int = 1) -> Path:
    """A wheel is a zip file; made by hand, it needs no build tools and no network."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tiny.py", f"VALUE = {value}\n")
        wheel.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny-1.0.dist-info/RECORD", "")
    return path


def start(hosts: Starter, requirements: str, cache: Path) -> Host:
    code = hosts.base() / "model" / "code"
    code.mkdir(parents=True)
    (code / "requirements.txt").write_text(requirements)
    return hosts.start(USES_TINY, MOORAGE_ENVIRONMENTS_DIR=cache)


def test_requirements_are_installed_once(hosts: Starter, tmp_path: Path) -> None:
    requirement = str(tiny_wheel(tmp_path / "wheels"))
    first = start(hosts, requirement, tmp_path / "cache").wait_ready()
    reply = first.invoke("[]")
    assert reply.text.startswith("[1, "), reply.text
    assert str(tmp_path / "cache") in reply.text, "an environment of its own"
    assert "numpy" in reply.text, "with the host's packages behind it"
    assert first.log.count("tiny==1.0") == 1
    assert "installed in " in first.log
    second = start(hosts, requirement, tmp_path / "cache").wait_ready()
    assert second.invoke("[]").text == reply.text
    assert "installed in " not in second.log


def test_instances_that_start_together_share_one_installation(hosts: Starter, tmp_path: Path) -> None:
    requirement = str(tiny_wheel(tmp_path / "wheels"))
    together = [start(hosts, requirement, tmp_path / "cache") for _ in range(3)]
    assert len({host.wait_ready().invoke("[]").text for host in together}) == 1
    assert sum("installed in " in host.log for host in together) == 1
    assert len(list((tmp_path / "cache").glob("*.build-*"))) == 1


def test_requirements_that_name_files_depend_on_their_content(hosts: Starter, tmp_path: Path) -> None:
    for value in (1, 2):
        code = hosts.base() / "model" / "code"
        tiny_wheel(code / "wheels", value)
        (code / "requirements.txt").write_text("./wheels/tiny-1.0-py3-none-any.whl")
        host = hosts.ready(USES_TINY, MOORAGE_ENVIRONMENTS_DIR=tmp_path / "cache")
        assert host.invoke("[]").text.startswith(f"[{value}, ")


def test_a_failed_installation_is_a_failed_start(hosts: Starter, tmp_path: Path) -> None:
    host = start(hosts, "./not-here-1.0-py3-none-any.whl", tmp_path / "cache")
    sentence = host.wait_failed()
    assert "code/requirements.txt failed with exit code 1 (ERROR: " in sentence
    assert "not-here" in host.log
    assert not list((tmp_path / "cache").glob("*.build-*")), "nothing half-built stays"


def test_a_crash_while_installing_leaves_nothing_that_counts(hosts: Starter, tmp_path: Path) -> None:
    source = tmp_path / "slow"
    source.mkdir()
    started = tmp_path / "started"
    # Its build never ends; the backend lies beside it, so that nothing is downloaded.
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "slow"\nbackend-path = ["."]\n[project]\nname = "tiny"\n'
    )
    (source / "slow.py").write_text(
        f"import os, pathlib, time\npathlib.Path({str(started)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    cache = tmp_path / "cache"
    host = start(hosts, str(source), cache)
    pid = int(wait_until(lambda: started.exists() and started.read_text(), "the build"))
    assert list(cache.glob("*.build-*"))
    (installer,) = host.workers()
    host.process.send_signal(signal.SIGKILL)
    wait_until(lambda: not exists(installer), "the installer to leave with us")
    if exists(pid):
        os.kill(pid, signal.SIGKILL)  # its own child, which only a process group or a container could catch
    tiny_wheel(tmp_path / "wheels")
    (source / "slow.py").write_text(
        "import shutil\n"
        "def build_wheel(folder, *ignored):\n"
        f"    shutil.copy({str(tmp_path / 'wheels' / 'tiny-1.0-py3-none-any.whl')!r}, folder)\n"
        "    return 'tiny-1.0-py3-none-any.whl'\n"
    )
    again = start(hosts, str(source), cache).wait_ready()
    assert again.invoke("[]").text.startswith("[1, ")
    assert len(list(cache.glob("*.build-*"))) == 1, "the remains are cleared"


def test_without_uv_pip_installs(hosts: Starter, tmp_path: Path) -> None:
    """uv is looked for beside the interpreter first: here is one without it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("python", "python3"):
        (folder / name).symlink_to(sys.executable)
    wheel = tiny_wheel(tmp_path / "wheels")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(str(wheel))
    program = (
        "import sys; from pathlib import Path; from moorage.modelhost import environments;"
        f"environments.sys.executable = {str(folder / 'python')!r};"
        "print(environments.python_for(Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, requirements, tmp_path / "cache"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(moorage.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Successfully installed tiny-1.0" in done.stderr
    assert Path(done.stdout.strip()).exists()


def test_what_uv_cannot_find_the_host_may_have(hosts: Starter, tmp_path: Path) -> None:
    """No index is reached: numpy is there already, as pip sees."""
    code = hosts.base() / "model" / "code"
    code.mkdir(parents=True)
    (code / "requirements.txt").write_text("numpy")
    host = hosts.ready(
        "import numpy\ndef model_fn(model_dir): return None\ndef predict_fn(data, model): return data",
        MOORAGE_ENVIRONMENTS_DIR=tmp_path / "cache",
        PIP_NO_INDEX="1",
        UV_OFFLINE="1",
    )
    assert host.invoke("[1]").text == "[1]"
    assert "pip tries" in host.log


def test_an_environment_is_built_anew_when_what_it_depends_on_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("tiny")
    keys = [environments._key(requirements, ())]
    keys.append(environments._key(requirements, ["numpy<2"]))
    monkeypatch.setenv("PIP_INDEX_URL", "https://packages.example/simple")
    keys.append(environments._key(requirements, ()))
    (tmp_path / "tiny-2.0.dist-info").mkdir()
    monkeypatch.setattr(site, "getsitepackages", lambda: [str(tmp_path)])
    keys.append(environments._key(requirements, ()))
    requirements.write_text("tiny==2")
    keys.append(environments._key(requirements, ()))
    assert len(set(keys)) == 5


def test_the_versions_of_an_image_are_installed_where_they_are_pinned(hosts: Starter, tmp_path: Path) -> None:
    host = hosts.start(
        "def model_fn(model_dir): return None\ndef predict_fn(data, model): return data",
        MOORAGE_ENVIRONMENTS_DIR=tmp_path / "cache",
        MOORAGE_MODEL_FAMILY="scikit-learn",
        MOORAGE_FRAMEWORK_VERSION="1.7-1-cpu-py3",
        MOORAGE_FRAMEWORK_VERSIONS="pinned",
    )
    wait_until(lambda: host.process.poll() is not None or host.is_open(), "the installation", 100)
    if host.process.poll() is not None and os.environ.get("CI") != "true":
        pytest.skip("no package index is reached")
    host.wait_ready()
    assert "scikit-learn==1.7." in host.log
    assert "runs here" not in host.log
