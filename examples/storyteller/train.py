"""Trains a small text generator: which word follows which two, in the manual that ships with Python.

Usage: python examples/storyteller/train.py MODEL_DIR    writes MODEL_DIR/chain.json and MODEL_DIR/code/inference.py
"""

import json
import re
import shutil
import sys
from collections import defaultdict
from pathlib import Path
from pydoc_data.topics import topics


def train() -> dict[str, list[str]]:
    """Every pair of neighbouring words, joined by a space, and the words that were seen after it."""
    chain: dict[str, list[str]] = defaultdict(list)
    for topic in topics.values():
        prose = " ".join(line for line in topic.splitlines() if re.match(r"[A-Za-z(]", line))
        words = [word for word in prose.split() if word.isprintable()]
        for first, second, third in zip(words, words[1:], words[2:], strict=False):
            chain[f"{first} {second}"].append(third)
    return chain


def write(model_dir: Path) -> None:
    (model_dir / "code").mkdir(parents=True, exist_ok=True)
    (model_dir / "chain.json").write_text(json.dumps(train()))
    shutil.copy(Path(__file__).parent / "code" / "inference.py", model_dir / "code")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
