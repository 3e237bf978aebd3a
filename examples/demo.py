"""The main job from end to end: train, pack, upload, deploy and call a model with plain boto3, then clean up.

`make demo` runs it. It starts a Moorage of its own on a free port with a fresh data directory; everything after that
is code that would run against Amazon SageMaker just as well.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import boto3
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split

IMAGE = "683313688378.dkr.ecr.us-east-1.amazonaws.com/sagemaker-scikit-learn:1.2-1-cpu-py3"
ROLE = "arn:aws:iam::000000000000:role/demo"
NAME = "iris"
CODE = Path(__file__).parent / "classifier" / "code"
OWN_CODE = (
    'import boto3; print(boto3.client("sagemaker-runtime").invoke_endpoint(EndpointName="reverser", '
    'ContentType="application/json", Body="{\\"text\\": \\"boats\\"}")["Body"].read())'
)
STORYTELLER = Path(__file__).parent / "storyteller" / "train.py"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="moorage-demo-") as folder:
        data_dir = Path(folder) / "data"
        server, url = start_server(data_dir)
        try:
            run(url, data_dir, Path(folder))
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(60)
    print(f"Moorage has stopped with status {status}, and its data directory is removed.")


def start_server(data_dir: Path) -> tuple["subprocess.Popen[str]", str]:
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "-m", "moorage", "serve", "--port", "0", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout is not None
    line = server.stdout.readline().strip()
    if not line:
        sys.exit("Moorage did not start; its messages are above.")
    print(f"{line} ({time.perf_counter() - started:.1f} s)")
    return server, line.rpartition(" ")[2]


def run(url: str, data_dir: Path, folder: Path) -> None:
    # What `moorage env` prints for a shell, set here for this process: boto3 finds it by itself.
    exports = subprocess.run(
        [sys.executable, "-m", "moorage", "env", "--data-dir", str(data_dir)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for line in exports.splitlines():
        if line.startswith("export "):
            key, _, value = line.removeprefix("export ").partition("=")
            os.environ[key] = value.strip("'")
    for key in ("AWS_PROFILE", "AWS_SESSION_TOKEN"):
        os.environ.pop(key, None)

    features, species = load_iris(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(features, species, random_state=7)
    model = LogisticRegression(max_iter=500).fit(train_x, train_y)
    joblib.dump(model, folder / "model.joblib")
    archive = folder / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder / "model.joblib", "model.joblib")
        tar.add(CODE, "code")
    print(f"Trained a classifier on {len(train_x)} flowers and packed it: {archive.stat().st_size:,} bytes.")

    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="demo")
    sagemaker = boto3.client("sagemaker")
    deploy(sagemaker, s3, NAME, archive)

    runtime = boto3.client("sagemaker-runtime")
    rows = "\n".join(",".join(map(str, row)) for row in test_x)
    reply = runtime.invoke_endpoint(EndpointName=NAME, ContentType="text/csv", Accept="text/csv", Body=rows)
    names = ["setosa", "versicolor", "virginica"]
    predicted = reply["Body"].read().decode().split("\n")
    right = sum(names[truth] == guess for truth, guess in zip(test_y, predicted, strict=True))
    print(
        f"CSV : {len(predicted)} flowers it had not seen, {right} recognised; first: {', '.join(predicted[:4])}"
    )
    body = json.dumps({"instances": test_x[:2].tolist()})
    reply = runtime.invoke_endpoint(EndpointName=NAME, ContentType="application/json", Body=body)
    print(f"JSON: {body} -> {reply['Body'].read().decode()}")
    print(f"      answered by production variant {reply['InvokedProductionVariant']}, {reply['ContentType']}")
    measure(runtime, body)

    stream_a_story(sagemaker, s3, runtime, folder)

    print("\nThe same with a server of your own (`.venv/bin/moorage serve` in another terminal):")
    print('  eval "$(.venv/bin/moorage env)"')
    print("  .venv/bin/moorage deploy examples/reverser --name reverser")
    print(f"  .venv/bin/python -c '{OWN_CODE}'\n")

    for name in (NAME, "story"):
        sagemaker.delete_endpoint(EndpointName=name)
        sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig={"Delay": 1})
        sagemaker.delete_endpoint_config(EndpointConfigName=name)
        sagemaker.delete_model(ModelName=name)
    print("Deleted both endpoints, their configurations and models.")


def deploy(sagemaker, s3, name: str, archive: Path) -> None:
    """Upload, create_model, create_endpoint_config, create_endpoint: as on SageMaker."""
    s3.upload_file(str(archive), "demo", f"{name}/model.tar.gz")
    print(f"Uploaded it to s3://demo/{name}/model.tar.gz with boto3.")
    sagemaker.create_model(
        ModelName=name,
        ExecutionRoleArn=ROLE,
        PrimaryContainer={"Image": IMAGE, "ModelDataUrl": f"s3://demo/{name}/model.tar.gz"},
    )
    variant = {
        "VariantName": "AllTraffic",
        "ModelName": name,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
    }
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    wait_until_in_service(sagemaker, name)


def stream_a_story(sagemaker, s3, runtime, folder: Path) -> None:
    """A text generator, and its words as they are made."""
    subprocess.run([sys.executable, str(STORYTELLER), str(folder / "story")], check=True)
    archive = folder / "story.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path in (folder / "story").iterdir():
            tar.add(path, path.name)
    print(
        f"\nTrained a text generator on Python's own manual and packed it: {archive.stat().st_size:,} bytes."
    )
    deploy(sagemaker, s3, "story", archive)
    started = time.perf_counter()
    body = json.dumps({"words": 30, "seed": 11})
    reply = runtime.invoke_endpoint_with_response_stream(
        EndpointName="story", ContentType="application/json", Body=body
    )
    print("Stream: ", end="", flush=True)
    times = []
    for event in reply["Body"]:
        times.append(time.perf_counter() - started)
        for line in event["PayloadPart"]["Bytes"].decode().splitlines():
            if line.startswith("data: {"):
                print(json.loads(line.removeprefix("data: "))["text"], end="", flush=True)
    print(
        f"\n{len(times)} parts, the first after {times[0] * 1000:.1f} ms, the last after {times[-1]:.1f} s."
    )


def wait_until_in_service(sagemaker, name: str) -> None:
    """Poll as any client would, with a line that lives where there is a terminal to show it."""
    started = time.perf_counter()
    live = sys.stdout.isatty()
    while True:
        endpoint = sagemaker.describe_endpoint(EndpointName=name)
        status = endpoint["EndpointStatus"]
        seconds = time.perf_counter() - started
        if live:
            print(f"\rEndpoint {name}: {status} ({seconds:.1f} s) ", end="", flush=True)
        if status != "Creating":
            break
        time.sleep(0.1)
    print(f"\rEndpoint {name}: Creating -> {status} in {seconds:.1f} s.")
    if status != "InService":
        sys.exit(f"It should be InService: {endpoint.get('FailureReason')}")


def measure(runtime, body: str) -> None:
    times = []
    for _ in range(200):
        started = time.perf_counter()
        runtime.invoke_endpoint(EndpointName=NAME, ContentType="application/json", Body=body)["Body"].read()
        times.append((time.perf_counter() - started) * 1000)
    percentiles = statistics.quantiles(times, n=100)
    print(
        f"200 calls one after the other: median {statistics.median(times):.1f} ms, 99% within "
        f"{percentiles[98]:.1f} ms, boto3 and the model included."
    )


if __name__ == "__main__":
    main()
