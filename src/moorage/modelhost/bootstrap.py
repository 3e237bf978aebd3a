"""Starts a worker, as a script: `python -P bootstrap.py CONTROL_FD MEMORY_FD FRONT_PID NUMBER`.

By path and not with -m, so that it works from an environment in which this package is not installed, and
from the user's code directory, without anything of the user's in front of the standard library (-P).
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    package_root = str(Path(__file__).resolve().parents[2])
    if package_root not in sys.path:
        sys.path.append(package_root)
    from moorage.modelhost.worker import main

    main(*map(int, sys.argv[1:]))
