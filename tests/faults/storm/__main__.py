"""`python -m tests.faults.storm`: random `kill -9` of one server under load, then everything is looked at.

    MOORAGE_STORM_KILLS   how many (1000 take some ten minutes)
    MOORAGE_STORM_SEED    repeats a run's choices, as far as the machine lets them be repeated

Ends with status 1 if anything was wrong; the report says what. A program of its own, because it adopts the processes
that the server may leave behind, and must have no other children.
"""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from moorage.async_inference.base import Record, Status
from moorage.async_inference.sql import SqlQueue
from moorage.launchers.procfs import become_subreaper
from moorage.storage.database import open_database
from tests.faults.storm import model, remains, victims
from tests.faults.storm.clients import ACCOUNT, ASYNC, SYNC, Load, object_at
from tests.servers import MoorageServer, eventually

KILLS = int(os.environ.get("MOORAGE_STORM_KILLS", "8"))
SEED = int(os.environ.get("MOORAGE_STORM_SEED", str(random.randrange(10**6))))
LONGEST_PAUSE_SECONDS = 0.5
SHARE_OF_SUPERVISORS = 0.04
SHARE_OF_UNREADY = 0.3
"""How many of the supervisors that are started again are killed while they start."""
LAST_SUPERVISOR = 0.25
"""The share of the kills that the last supervisor sees: for its descriptors to be counted before and after."""
INSTANCES = 3
FILES = {"code/inference.py": Path(model.__file__).read_text()}
ENVIRONMENT = {"SAGEMAKER_MODEL_SERVER_WORKERS": "2"}
_ODD_LINE = re.compile(r"Traceback|cannot be (killed|removed)|a fault|never retrieved|cannot call out|ERROR")
_NUMBERS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|i-[0-9a-f]{10,}|\d+(\.\d+)?")


class Storm:
    def __init__(self, directory: Path) -> None:
        self.chance = random.Random(SEED)
        self.temporary = directory / "tmp"
        self.temporary.mkdir(mode=0o755)
        self.timeline = directory / "kills"
        self.server = MoorageServer(
            directory / "data",
            container_isolation="auto",
            workers=2,
            async_lease_seconds=5,
            async_max_deaths=100,
            environment={"TMPDIR": str(self.temporary)},
        )
        self.killed: Counter[str] = Counter()
        self.problems: list[str] = []
        self.figures: dict[str, object] = {}

    def run(self) -> None:
        data_dir = self.server.data_dir
        interfaces, mounts = remains.interfaces(), remains.mounts(data_dir)
        self.server.start()
        self._deploy()
        run_files = {path.name for path in (data_dir / "run").iterdir()}
        load = Load(self.server, SEED)
        load.start()
        try:
            self._strike(load)
        finally:
            load.stop()
        self._recover(load)
        self._finish_async(load)
        instances = {path.name for path in (data_dir / "instances").iterdir()}
        if self.server.stop() != 0:
            self.problems.append("the server did not stop with status 0")

        self.problems += load.seen.problems + self._wrong_results(load)
        remains.collect_dead_children(besides=0)
        for what, left in {
            "processes": remains.processes(data_dir),
            "interfaces": remains.interfaces() - interfaces,
            "mounts": remains.mounts(data_dir) - mounts,
            "control groups": remains.control_groups(data_dir),
            "temporary files": {path.name for path in self.temporary.iterdir()} - self._probes(),
            "files in the run directory": {path.name for path in (data_dir / "run").iterdir()} - run_files,
            "half objects": {
                str(path) for path in (data_dir / "s3").glob("*/.sgwtmp/**/*") if path.is_file()
            },
            "directories of instances": instances if len(instances) != 2 * INSTANCES else set(),
        }.items():
            if left:
                self.problems.append(f"left behind, {what}: {sorted(left)[:20]}")
        self._report(load)

    # --- the server -----------------------------------------------------------------------------------

    def _deploy(self) -> None:
        s3 = self.server.client("s3")
        for bucket in ("inputs", "results"):
            s3.create_bucket(Bucket=bucket)
        self.server.deploy(SYNC, FILES, instances=INSTANCES, environment=ENVIRONMENT)
        self.server.deploy(
            ASYNC,
            FILES,
            instances=INSTANCES,
            environment=ENVIRONMENT,
            config={
                "AsyncInferenceConfig": {
                    "OutputConfig": {
                        "S3OutputPath": "s3://results/out",
                        "S3FailurePath": "s3://results/failed",
                    },
                    "ClientConfig": {"MaxConcurrentInvocationsPerInstance": 4},
                }
            },
        )

    # --- kills ----------------------------------------------------------------------------------------

    def _strike(self, load: Load) -> None:
        last_life = KILLS - round(LAST_SUPERVISOR * KILLS)
        while (count := self.killed.total()) < KILLS or "before" not in self.figures:
            if count >= last_life and "before" not in self.figures:
                self._recover(load)
                self.figures["before"] = remains.descriptors(self.server.pid)
            time.sleep(self.chance.uniform(0, LONGEST_PAUSE_SECONDS))
            if count < last_life and (self.chance.random() < SHARE_OF_SUPERVISORS or count == last_life - 1):
                self._kill_supervisor()
                continue
            found = victims.census(self.server.data_dir, supervisor=self.server.pid)
            victim = victims.choose(found, self.chance)
            if victim is not None and victims.kill(victim):
                self._note_kill(victim.kind)
        self._recover(load)
        self.figures["after"] = remains.descriptors(self.server.pid)
        self._compare_descriptors()

    def _note_kill(self, kind: str) -> None:
        self.killed[kind] += 1
        with self.timeline.open("a") as file:
            file.write(f"{time.strftime('%H:%M:%S')} {kind}\n")
        if self.killed.total() % 100 == 0:
            print(f"{self.killed.total()} killed", flush=True)

    def _kill_supervisor(self) -> None:
        """And start it again; sometimes that one is killed while it starts."""
        self.server.kill()
        self._note_kill("supervisor")
        self._see_that_all_died()
        while self.chance.random() < SHARE_OF_UNREADY:
            killer = threading.Timer(self.chance.uniform(0.0, 1.5), self._kill_whoever_starts)
            killer.start()
            started = False
            try:
                self.server.start()
                started = True
            except AssertionError:
                self._note_kill("supervisor, starting")
            killer.join()
            if started:  # it was ready sooner
                with suppress(AssertionError, ProcessLookupError):
                    self.server.kill()
                self._note_kill("supervisor")
            self._see_that_all_died()
        try:
            self.server.start()
        except AssertionError as error:
            self.problems.append(f"the server did not start again: {str(error)[-2000:]}")
            raise

    def _kill_whoever_starts(self) -> None:
        with suppress(AssertionError, ProcessLookupError):
            os.kill(self.server.pid, signal.SIGKILL)

    def _see_that_all_died(self) -> None:
        """Everything ends with the supervisor, by itself."""
        started = time.monotonic()

        def left() -> set[str]:
            remains.collect_dead_children(besides=0)
            return remains.processes(self.server.data_dir)

        try:
            eventually(lambda: not left(), timeout=10)
        except AssertionError:
            self.problems.append(f"10 s after the supervisor was killed there are {sorted(left())}")
        longest = self.figures.get("longest until all had died with the supervisor", 0.0)
        assert isinstance(longest, float)
        self.figures["longest until all had died with the supervisor"] = max(
            longest, round(time.monotonic() - started, 2)
        )

    # --- afterwards -----------------------------------------------------------------------------------

    def _recover(self, load: Load) -> None:
        """Wait until every instance is back and can call out."""
        started = time.monotonic()
        runtime = load.client("sagemaker-runtime")
        called: dict[str, dict[str, str]] = {}

        def ask(number: int) -> None:
            with suppress(ClientError, BotoCoreError):
                reply = runtime.invoke_endpoint(
                    EndpointName=SYNC, Body=f"call:c{number}:", ContentType="text/plain"
                )
                answer: dict[str, str] = json.loads(reply["Body"].read())
                called[answer["instance"]] = answer

        def is_back() -> bool:
            for number in range(4 * INSTANCES):
                ask(number)
            return len([each for each in called.values() if each["status"] in ("200", "")]) >= INSTANCES

        kinds = {"gateway": 2, "controller": 1, "S3": 1, "front": 2 * INSTANCES, "worker": 4 * INSTANCES}
        try:
            eventually(is_back, timeout=90)
            eventually(lambda: self._lacking(kinds) == {}, timeout=90)
        except AssertionError:
            self.problems.append(f"not back after 90 s: {called}; lacking {self._lacking(kinds)}")
        self.figures.setdefault("recovered in", []).append(round(time.monotonic() - started, 1))  # type: ignore[attr-defined]

    def _lacking(self, kinds: dict[str, int]) -> dict[str, int]:
        found = Counter(each.kind for each in victims.census(self.server.data_dir))
        return {kind: number - found[kind] for kind, number in kinds.items() if found[kind] < number}

    def _compare_descriptors(self) -> None:
        before, after = self.figures["before"], self.figures["after"]
        assert isinstance(before, Counter) and isinstance(after, Counter)
        # Dead children are collected every few seconds, and what follows the end of a process takes a moment.
        allowed = Counter({kind: 20 if kind == "dead children" else 3 for kind in after})
        grown = {
            kind: after[kind] - before[kind] for kind in after if after[kind] > before[kind] + allowed[kind]
        }
        if grown:
            self.problems.append(f"the supervisor has more open than before: {grown}")

    def _finish_async(self, load: Load) -> None:
        try:
            eventually(lambda: not backlog(self.server), timeout=240)
        except AssertionError:
            self.problems.append(f"asynchronous invocations are unfinished: {backlog(self.server)}")

    def _wrong_results(self, load: Load) -> list[str]:
        records = asyncio.run(all_records(self.server))
        by_output = {record.invocation.output_location: record for record in records}
        found = [
            problem
            for name, accepted in load.seen.accepted.items()
            if (problem := self._wrong(name, accepted, by_output.get(accepted.output))) is not None
        ]
        found += [
            f"{record.invocation.inference_id}, whose acceptance was not heard of, is unfinished"
            for record in records
            if record.finished_time is None
        ]
        found += [
            f"{location} has changed after its invocation had finished"
            for location, content in load.seen.results.items()
            if object_at(self.server, location) != content
        ]
        outputs = Counter(record.invocation.output_location for record in records)
        found += [f"{location} belongs to {count}" for location, count in outputs.items() if count > 1]
        self.figures["async ended"] = dict(Counter(str(record.status) for record in records))
        self.figures["async attempts"] = dict(Counter(record.attempts for record in records))
        self.figures["results watched"] = len(load.seen.results)
        return found

    def _wrong(self, name: str, accepted: Any, record: Record | None) -> str | None:
        if record is None:
            return f"{name} was accepted and is not known"
        if record.invocation.inference_id != name:
            return f"{name} has the inference id {record.invocation.inference_id}"
        expected = Status.FAILED if accepted.text.startswith("fails:") else Status.COMPLETED
        if record.status is not expected:
            return f"{name} is {record.status}: {record.reason}"
        output, failure = (object_at(self.server, place) for place in (accepted.output, accepted.failure))
        if expected is Status.COMPLETED:
            if failure is not None:
                return f"{name} has a failure object"
            told = None if output is None else output.decode().rpartition(" ")[0]
            return None if told == model.answer(accepted.text) else f"{name}: its output is {output!r:.300}"
        if output is not None:
            return f"{name} has an output object"
        told = None if failure is None else failure.decode()
        return None if told == record.reason else f"{name}: its failure object is {failure!r:.300}"

    def _probes(self) -> set[str]:
        """What a supervisor that was killed as it began had tried out. Housekeeping removes it after a day."""
        return {path.name for path in self.temporary.glob("moorage-probe-*")}

    def _report(self, load: Load) -> None:
        print(f"seed {SEED}: {self.killed.total()} killed: {dict(self.killed.most_common())}")
        for what, count in sorted(load.seen.counts.items()):
            print(f"  {count:7} {what}")
        for line in load.seen.timeouts:
            print(f"  timeout: {line}")
        for name, figure in self.figures.items():
            print(f"  {name}: {dict(figure) if isinstance(figure, Counter) else figure}")
        lines = Counter(
            _NUMBERS.sub("#", line) for line in self.server.log.splitlines() if _ODD_LINE.search(line)
        )
        for line, count in lines.most_common(25):
            print(f"  log {count} × {line[:220]}")
        for problem in self.problems[:40]:
            print(f"PROBLEM {problem}")
        print(f"{len(self.problems)} problems")


def backlog(server: MoorageServer) -> Any:
    return asyncio.run(unfinished(server))


async def unfinished(server: MoorageServer) -> Sequence[tuple[str, str]]:
    database = await open_database(f"sqlite+aiosqlite:///{server.data_dir / 'moorage.db'}")
    try:
        return await SqlQueue(database).backlogged()
    finally:
        await database.close()


async def all_records(server: MoorageServer) -> Sequence[Record]:
    database = await open_database(f"sqlite+aiosqlite:///{server.data_dir / 'moorage.db'}")
    try:
        return [record for _, record in await SqlQueue(database).records(ACCOUNT, most=10**6)]
    finally:
        await database.close()


def main() -> int:
    become_subreaper()
    # Containers may run as other users, who must be able to pass.
    directory = Path(tempfile.mkdtemp(prefix="storm-"))
    print(f"seed {SEED}, {KILLS} kills, in {directory}", flush=True)
    directory.chmod(0o711)
    storm = Storm(directory)
    try:
        storm.run()
    finally:
        storm.server.ensure_stopped()
    if not storm.problems:
        shutil.rmtree(directory)
    return 1 if storm.problems else 0


if __name__ == "__main__":
    sys.exit(main())
