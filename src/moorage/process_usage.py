"""What this process takes of the machine, for the metrics."""

import os
import time
from pathlib import Path
from typing import Any

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def process_usage() -> dict[str, Any]:
    """Its id, the processor time that it has used since it began, and the memory that it has now."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "pid": os.getpid(),
        "cpu_seconds": time.process_time(),
        "resident_bytes": resident_pages * _PAGE_BYTES,
    }
