"""What large and lost models of one account do to everyone else.

Usage: python benchmarks/deployments.py [--megabytes 1500] [--instances 6] [--lost 1000] [--seconds 40]

First, one account deploys an archive of zeros, of that many MB in each instance, while another deploys small
endpoints one after the other; metrics are scraped and models listed meanwhile. Then a server starts with so many
endpoints whose model is gone from S3, and the time of its processes is counted from 25 s on. The archive is unpacked
in each instance, and needs that much room in the directory of temporary files.
"""

import argparse
import asyncio
import gzip
import io
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3

from harness import descendants
from moorage.cli.client import PrivateRoutes
from moorage.config import Settings
from moorage.resources import Endpoint, EndpointStatus
from moorage.storage.database import open_database
from moorage.storage.resources import SqlResourceStore
from moorage_server import ACCOUNT, ROLE, MoorageServer, moorage_serve
from workers import use_of

MODEL = b"def model_fn(d):\n    return 1\ndef transform_fn(m, b, c, a):\n    return bytes(b), 'text/plain'\n"
MIB = 2**20
SETTLING_SECONDS = 25


def measure_neighbours(megabytes: int, instances: int) -> None:
    """Print what a large deployment of one account does to another account."""
    with tempfile.TemporaryDirectory() as folder, moorage_serve(Path(folder)) as server:
        routes = PrivateRoutes(Settings(data_dir=server.data_dir))
        key = routes.ask("POST", "accounts", name="other")["AccessKey"]
        others = boto3.client(
            "sagemaker",
            endpoint_url=server.url,
            region_name="us-east-1",
            aws_access_key_id=key["AccessKeyId"],
            aws_secret_access_key=key["SecretAccessKey"],
        )
        s3, sagemaker = server.client("s3"), server.client("sagemaker")
        s3.create_bucket(Bucket="models")
        s3.put_object(Bucket="models", Key="large", Body=archive(megabytes * MIB))
        s3.put_object(Bucket="models", Key="small", Body=archive(0))
        configure(sagemaker, "large", instances)
        configure(others, "small", 1)

        def scrape() -> None:
            with routes.open("GET", "metrics") as reply:
                reply.read()

        def deploy(name: str) -> None:
            others.create_endpoint(EndpointName=name, EndpointConfigName="small")
            others.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig={"Delay": 0.01})

        numbers = iter(range(1_000_000))
        for what in ("alone", "beside the large one"):
            done = threading.Event()
            found: dict[str, list[float]] = {"small endpoint": [], "scrape": [], "ListModels": []}
            threads = [
                threading.Thread(target=repeat, args=(scrape, found["scrape"], done)),
                threading.Thread(
                    target=repeat, args=(server.client("sagemaker").list_models, found["ListModels"], done)
                ),
            ]
            begin = time.perf_counter()
            if what != "alone":
                sagemaker.create_endpoint(EndpointName="large", EndpointConfigName="large")
            for thread in threads:
                thread.start()
            while not done.is_set():
                found["small endpoint"].append(timed(lambda: deploy(f"small-{next(numbers)}")))
                if what == "alone":
                    is_over = time.perf_counter() - begin > 5
                else:
                    is_over = (
                        sagemaker.describe_endpoint(EndpointName="large")["EndpointStatus"] != "Creating"
                    )
                if is_over:
                    done.set()
            for thread in threads:
                thread.join()
            print(f"{what}, {time.perf_counter() - begin:.1f} s:")
            for name, seconds in found.items():
                worst, middle = max(seconds), statistics.median(seconds)
                print(
                    f"  {name:15} {len(seconds):5} times, median {middle:.3f} s, longest {worst:.3f} s",
                    flush=True,
                )


def measure_lost(number: int, seconds: int) -> None:
    """Print what endpoints cost that cannot be restored."""
    with tempfile.TemporaryDirectory() as folder:
        with moorage_serve(Path(folder)) as server:
            data_dir = server.data_dir
            server.client("s3").create_bucket(Bucket="models")
        asyncio.run(lose(data_dir, number))
        with moorage_serve(Path(folder)) as server:
            time.sleep(SETTLING_SECONDS)
            before, begin = processor_seconds(server), time.perf_counter()
            time.sleep(seconds)
            share = (processor_seconds(server) - before) / (time.perf_counter() - begin)
            sagemaker = server.client("sagemaker")
            names = iter(range(50))
            times = [timed(lambda: create_model(sagemaker, f"new-{next(names)}", {})) for _ in range(50)]
            print(f"{number} endpoints whose model is gone: {share:.1%} of a core")
            print(
                f"  CreateModel: median {statistics.median(times):.4f} s, longest {max(times):.4f} s",
                flush=True,
            )


async def lose(data_dir: Path, number: int) -> None:
    """Rows of endpoints in service whose model is not in S3."""
    database = await open_database(f"sqlite+aiosqlite:///{data_dir / 'moorage.db'}")
    store = SqlResourceStore(database)
    for each in range(number):
        name, now = f"lost-{each:05}", datetime.now(UTC)
        variant = {"VariantName": "v", "ModelName": name, "InitialInstanceCount": 1}
        container = {"Image": "moorage/modelhost", "ModelDataUrl": "s3://models/gone.tar.gz"}
        endpoint = Endpoint(
            account_id=ACCOUNT,
            name=name,
            arn=f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:endpoint/{name}",
            status=EndpointStatus.IN_SERVICE,
            endpoint_config_name=name,
            deployment_id=name,
            target_config_name=None,
            target_deployment_id=None,
            creation_time=now,
            last_modified_time=now,
            failure_reason=None,
            deployed={
                "EndpointConfig": {"EndpointConfigName": name, "ProductionVariants": [variant]},
                "Models": {name: {"ModelName": name, "PrimaryContainer": container}},
            },
            definition={},
        )
        await store.create(endpoint, {})
    await database.close()


def archive(zeros: int) -> bytes:
    """A model.tar.gz with code and so many bytes of zeros."""
    buffer = io.BytesIO()
    with gzip.open(buffer, "wb", compresslevel=6) as file:
        for name, size in (("code/inference.py", len(MODEL)), ("zeros", zeros)):
            entry = tarfile.TarInfo(name)
            entry.size = size
            file.write(entry.tobuf())
            if name == "zeros":
                for _ in range(size // MIB):
                    file.write(bytes(MIB))
            else:
                file.write(MODEL.ljust(512, b"\0"))
        file.write(bytes(1024))
    return buffer.getvalue()


def configure(sagemaker: Any, name: str, instances: int) -> None:
    create_model(sagemaker, name, {"ModelDataUrl": f"s3://models/{name}"})
    variant = {
        "VariantName": "v",
        "ModelName": name,
        "InitialInstanceCount": instances,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])


def create_model(sagemaker: Any, name: str, data: Mapping[str, str]) -> None:
    container = {"Image": "moorage/modelhost", **data}
    sagemaker.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=container)


def repeat(call: Callable[[], object], times: list[float], done: threading.Event) -> None:
    while not done.wait(0.02):
        times.append(timed(call))


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def processor_seconds(server: MoorageServer) -> float:
    return sum(use_of(pid).cpu_seconds for pid in [server.pid, *descendants(server.pid)])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (("megabytes", 1500), ("instances", 6), ("lost", 1000), ("seconds", 40)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    measure_neighbours(arguments.megabytes, arguments.instances)
    measure_lost(arguments.lost, arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
