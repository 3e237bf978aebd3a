"""What the clients call: a server of our own with everything they need, or what the environment names."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.servers import MODELHOST, ROLE, MoorageServer

MODEL = Path(__file__).parent / "model" / "code" / "inference.py"
TEXT_MODEL = Path(__file__).parent / "model" / "text" / "inference.py"
ROOT = Path(__file__).parent.parent
REGION = "us-east-1"
Environment = Mapping[str, str]
_BUCKET = "conformance"
_WORKERS = "4"


@contextmanager
def named_elsewhere(url: str | None) -> Iterator[Environment]:
    """A server that somebody else runs: the CONFORMANCE_* and AWS_* variables are used as they are."""
    yield {**os.environ, "AWS_ENDPOINT_URL": url} if url else dict(os.environ)


@contextmanager
def own_server(images: Mapping[str, Sequence[str]] | None = None) -> Iterator[Environment]:
    """`moorage serve` on a free port with the endpoints deployed; yields the clients' environment.

    `images` are more of the image catalogue, for clients that deploy containers of their own.
    """
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        config = Path(directory) / "moorage.toml"
        lines = [f"{json.dumps(glob)} = {json.dumps(command)}" for glob, command in (images or {}).items()]
        config.write_text("\n".join(["[images]", *lines, ""]))
        server = MoorageServer(
            Path(directory) / "data", arguments=("--config", str(config)), allow_unsigned_payload=True
        )
        server.start()
        try:
            _deploy(server)
            with _failing_gateway(server) as (failing, control):
                yield {
                    **_without_aws(os.environ),
                    "AWS_ENDPOINT_URL": server.url,
                    "AWS_REGION": REGION,
                    "AWS_DEFAULT_REGION": REGION,
                    "AWS_ACCESS_KEY_ID": server.key.access_key_id,
                    "AWS_SECRET_ACCESS_KEY": server.key.secret_access_key,
                    "AWS_EC2_METADATA_DISABLED": "true",
                    "CONFORMANCE_ENDPOINT": "conformance",
                    "CONFORMANCE_ASYNC_ENDPOINT": "conformance-async",
                    "CONFORMANCE_TEXT_ENDPOINT": "conformance-text",
                    "CONFORMANCE_BUCKET": _BUCKET,
                    "CONFORMANCE_ROLE": ROLE,
                    "CONFORMANCE_IMAGES": "1",
                    "CONFORMANCE_FAILING_URL": failing,
                    "CONFORMANCE_FAILING_CONTROL": control,
                }
        finally:
            server.ensure_stopped()


def _without_aws(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(("AWS_", "CONFORMANCE_", "MOORAGE_"))
    }


def _deploy(server: MoorageServer) -> None:
    """`conformance` with the variants Main and Other, all the traffic on Main; `conformance-async`, and
    `conformance-text`."""
    sagemaker = server.client("sagemaker")
    server.client("s3").create_bucket(Bucket=_BUCKET)
    for name, model, workers in (("conformance", MODEL, _WORKERS), ("conformance-text", TEXT_MODEL, "1")):
        sagemaker.create_model(
            ModelName=name,
            ExecutionRoleArn=ROLE,
            PrimaryContainer={
                "Image": MODELHOST,
                "ModelDataUrl": server.upload(name, {"code/inference.py": model.read_text()}),
                "Environment": {"SAGEMAKER_MODEL_SERVER_WORKERS": workers},
            },
        )
    variant = {"ModelName": "conformance", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    main = {"VariantName": "Main", "InitialVariantWeight": 1, **variant}
    other = {"VariantName": "Other", "InitialVariantWeight": 0, **variant}
    sagemaker.create_endpoint_config(EndpointConfigName="conformance", ProductionVariants=[main, other])
    sagemaker.create_endpoint_config(
        EndpointConfigName="conformance-async",
        ProductionVariants=[main],
        AsyncInferenceConfig={
            "OutputConfig": {"S3OutputPath": f"s3://{_BUCKET}/out", "S3FailurePath": f"s3://{_BUCKET}/failed"}
        },
    )
    text = {**main, "ModelName": "conformance-text"}
    sagemaker.create_endpoint_config(EndpointConfigName="conformance-text", ProductionVariants=[text])
    names = ("conformance", "conformance-async", "conformance-text")
    for name in names:
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    for name in names:
        endpoint = server.wait_for(name, "InService", "Failed")
        if endpoint["EndpointStatus"] != "InService":
            raise SystemExit(f"{name}: {endpoint.get('FailureReason')}")


@contextmanager
def _failing_gateway(server: MoorageServer) -> Iterator[tuple[str, str]]:
    log = server.data_dir.parent / "failing-gateway.log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "conformance.failing_gateway", str(server.data_dir)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            urls = process.stdout.readline().strip(), process.stdout.readline().strip()
            if not all(urls):
                raise SystemExit(f"The gateway that fails on demand did not start:\n{log.read_text()}")
            yield urls
        finally:
            process.stdin.close()
