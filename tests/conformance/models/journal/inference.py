"""Writes every body down in the file `JOURNAL` as it comes, then waits for the file `GATE`, if one is named there."""

import fcntl
import os
from pathlib import Path


def model_fn(model_dir):
    return None


def transform_fn(model, body, content_type, accept):
    text = body if isinstance(body, str) else body.decode()
    with Path(os.environ["JOURNAL"]).open("a") as journal:
        journal.write(text + "\n")
    with Path(os.environ["GATE"]).open("a") as gate:
        fcntl.flock(gate, fcntl.LOCK_SH)
    return text, "text/plain"
