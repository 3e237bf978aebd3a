"""A few random `kill -9` under load; `MOORAGE_STORM_KILLS=1000 python -m tests.faults.storm` is the long form."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nothing_is_wrong_lost_or_left_after_kills_of_random_processes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.storm"],
        cwd=ROOT,
        env={"MOORAGE_STORM_KILLS": "8", **os.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=110,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
