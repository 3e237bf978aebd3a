"""What an authorization decision costs: kept ones, ones that depend on the request, and the compilation of a policy.

Usage: python benchmarks/iam.py [--rounds 5]

On one core that does nothing else.
"""

import json
import os
import sys
import time
from collections.abc import Callable

from harness import SUBJECT_CORE, Effort, run_alone
from moorage.auth.authorizer import Authorizer, Grants
from moorage.auth.policy import Caller, CallerKind, PolicyKind, compile_policy
from tables import Table

ACCOUNT = "111122223333"
INVOKE = "sagemaker:InvokeEndpoint"
ENDPOINT = f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:endpoint/prod-a"
CALLER = Caller(
    arn=f"arn:aws:iam::{ACCOUNT}:user/alice",
    account_id=ACCOUNT,
    kind=CallerKind.USER,
    user_id="AIDAEXAMPLE",
    user_name="alice",
    tags={"team": "blue"},
)
STATEMENTS = [
    {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::models", "arn:aws:s3:::models/*"]},
    {"Effect": "Allow", "Action": ["sagemaker:Describe*", "sagemaker:List*"], "Resource": "*"},
    {"Effect": "Deny", "Action": "sagemaker:Delete*", "Resource": "arn:aws:sagemaker:*:*:endpoint/prod-*"},
    {"Effect": "Allow", "Action": INVOKE, "Resource": f"arn:aws:sagemaker:*:{ACCOUNT}:endpoint/*"},
]
CONDITION = {"IpAddress": {"aws:SourceIp": ["192.0.2.0/24", "2001:db8::/32"]}}
TIMES = 100_000


def measure(effort: Effort) -> list[Table]:
    plain = json.dumps({"Version": "2012-10-17", "Statement": STATEMENTS})
    conditional = json.dumps(
        {"Version": "2012-10-17", "Statement": [{**each, "Condition": CONDITION} for each in STATEMENTS]}
    )
    kept, depending = authorizer(plain), authorizer(conditional)
    resources = [f"{ENDPOINT}-{number}" for number in range(TIMES // 10)]
    work: dict[str, tuple[int, Callable[[], None]]] = {
        "a kept decision": (TIMES, lambda: decide_often(kept, TIMES)),
        "a new decision, without conditions": (len(resources), lambda: decide_anew(kept, plain, resources)),
        "a decision on the source address": (TIMES // 10, lambda: decide_often(depending, TIMES // 10)),
        "compiling the policy": (1000, lambda: compile_often(plain, 1000)),
    }
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {SUBJECT_CORE})
    try:
        found = {name: time_each(effort.rounds, *each) for name, each in work.items()}
    finally:
        os.sched_setaffinity(0, before)
    return [
        Table(
            name="iam",
            title="Authorization decisions",
            setup=f"On one core, {effort.rounds} rounds; a policy of {len(STATEMENTS)} statements.",
            figures={"µs": found},
        )
    ]


def authorizer(document: str) -> Authorizer:
    return Authorizer({"key": grants(document)})


def grants(document: str) -> Grants:
    policy = compile_policy(document, name="p", kind=PolicyKind.IDENTITY)
    return Grants(caller=CALLER, identity=(policy,))


def context() -> dict[str, str]:
    return {"aws:SourceIp": "192.0.2.7", "aws:CurrentTime": "2026-01-01T00:00:00Z"}


def time_each(rounds: int, times: int, work: Callable[[], None]) -> list[float]:
    """Microseconds for each of the times, in each round."""
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        work()
        taken.append((time.perf_counter() - begun) / times * 1e6)
    return taken


def decide_often(authorizer: Authorizer, times: int) -> None:
    for _ in range(times):
        if not authorizer.decide("key", INVOKE, ENDPOINT, context).allowed:
            raise SystemExit("The request should be allowed.")


def decide_anew(authorizer: Authorizer, document: str, resources: list[str]) -> None:
    authorizer.replace({"key": grants(document)})
    for resource in resources:
        if not authorizer.decide("key", INVOKE, resource, context).allowed:
            raise SystemExit("The request should be allowed.")


def compile_often(document: str, times: int) -> None:
    for _ in range(times):
        compile_policy(document, name="p", kind=PolicyKind.IDENTITY)


if __name__ == "__main__":
    sys.exit(run_alone(__doc__, measure))
