"""The logs of an endpoint through the whole server: what its container prints, for those only who may read it."""

import subprocess
import sys

from tests.serve.test_iam import User, allow, policy, refusal
from tests.servers import ACCOUNT, MoorageServer, eventually

GROUP = "/aws/sagemaker/Endpoints/talkative"
ARN = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:{GROUP}"
TALKATIVE = {
    "code/inference.py": "def model_fn(d):\n    print('it talks', flush=True)\n    return 1\n"
    "def transform_fn(m, b, c, a):\n    return b, 'text/plain'\n"
}


def test_who_may_reads_what_a_container_prints(server: MoorageServer) -> None:
    server.deploy("talkative", TALKATIVE)
    reader = User(server, "log-reader", policy(allow("logs:*", resource=f"{ARN}:*"))).client("logs")
    found = reader.filter_log_events(logGroupName=GROUP, logStreamNamePrefix="AllTraffic/")["events"]
    (event,) = [each for each in found if "it talks" in each["message"]]
    stream = event["logStreamName"]
    messages = [
        each["message"] for each in reader.get_log_events(logGroupName=GROUP, logStreamName=stream)["events"]
    ]
    assert event["message"] in messages

    stranger = User(server, "log-stranger", policy(allow("logs:*", resource=f"{ARN}-2:*"))).client("logs")
    for call, resource in (
        (lambda: stranger.filter_log_events(logGroupName=GROUP), f"{ARN}:log-stream:"),
        (
            lambda: stranger.get_log_events(logGroupName=GROUP, logStreamName=stream),
            f"{ARN}:log-stream:{stream}",
        ),
    ):
        code, message = refusal(call)
        assert code == "AccessDeniedException"
        assert f"on resource: {resource}" in message


def test_an_endpoint_of_the_same_name_does_not_show_the_logs_of_the_one_before(server: MoorageServer) -> None:
    group = "/aws/sagemaker/Endpoints/again"
    cloudwatch, sagemaker = server.client("logs"), server.client("sagemaker")

    def lines() -> tuple[str, str]:
        """What boto3's client finds, and what `moorage logs` shows."""
        events = cloudwatch.filter_log_events(logGroupName=group)["events"]
        command = (sys.executable, "-m", "moorage", "logs", "again", "--data-dir", str(server.data_dir))
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return "\n".join(event["message"] for event in events), shown

    server.deploy("again", {"code/inference.py": TALKATIVE["code/inference.py"].replace("it", "the first")})
    assert all("the first talks" in each for each in lines())
    sagemaker.delete_endpoint(EndpointName="again")
    eventually(lambda: not sagemaker.list_endpoints(NameContains="again")["Endpoints"])
    assert all("the first talks" in each for each in lines()), "kept for a time"

    server.upload("again", TALKATIVE)
    sagemaker.create_endpoint(EndpointName="again", EndpointConfigName="again")
    server.wait_for("again", "InService")
    for each in lines():
        assert "it talks" in each
        assert "the first" not in each
