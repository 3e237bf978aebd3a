"""Looking at processes when there are no more threads to be had."""

import asyncio
import os
import subprocess
import sys

from moorage.launchers.census import Census

PROGRAM = """
import asyncio, threading
from moorage.launchers.census import Census, in_thread

def no_more_threads(*arguments):
    raise RuntimeError("can't start new thread")

async def main():
    threading._start_new_thread = no_more_threads  # what a machine without room for processes does to every thread
    print(await in_thread(int, "7"), len(await Census().take()) > 0, flush=True)

asyncio.run(main())
"""


def test_a_look_needs_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == "7 True\n", done.stderr


async def test_looks_of_those_who_ask_at_the_same_time_are_shared() -> None:
    census = Census()
    first, second, third = await asyncio.gather(census.take(), census.take(), census.take())
    assert second is third
    assert os.getppid() in {process.pid for process in first}
