"""boto3 as a client, of whatever release: ../boto3-2024 runs this program too."""

from typing import Any

import boto3
from botocore.config import Config

from botocore_behaviours import BEHAVIOURS
from botocore_behaviours.caller import Caller
from report import run


def make_client(service: str, /, *, config: dict[str, Any], **arguments: Any) -> Any:
    return boto3.client(service, config=Config(**config), **arguments)


if __name__ == "__main__":
    caller = Caller(make_client)
    known = {
        name: test
        for name, test in BEHAVIOURS.items()
        if not name.startswith("async.body-") or caller.has("InvokeEndpointAsync", "Body")
    }
    run(known, caller)
