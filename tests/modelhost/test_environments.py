"""code/requirements.txt: installed once into an environment of its own, shared by content."""

import os
import signal
import zipfile
from pathlib import Path

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
    assert "Successfully installed tiny" in first.log
    second = start(hosts, requirement, tmp_path / "cache").wait_ready()
    assert second.invoke("[]").text == reply.text
    assert "Successfully installed" not in second.log


def test_instances_that_start_together_share_one_installation(hosts: Starter, tmp_path: Path) -> None:
    requirement = str(tiny_wheel(tmp_path / "wheels"))
    together = [start(hosts, requirement, tmp_path / "cache") for _ in range(3)]
    assert len({host.wait_ready().invoke("[]").text for host in together}) == 1
    assert sum("Successfully installed" in host.log for host in together) == 1
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
    (pip,) = host.workers()
    host.process.send_signal(signal.SIGKILL)
    wait_until(lambda: not exists(pip), "pip to leave with us")
    if exists(pid):
        os.kill(pid, signal.SIGKILL)  # pip's own child, which only a process group or a container could catch
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
