"""The echo model behind Ray Serve. Usage: python ray_echo.py PORT"""

import signal
import sys
from typing import Any

import ray
from ray import serve
from ray.serve.schema import LoggingConfig
from starlette.requests import Request


@serve.deployment(num_replicas=1, max_ongoing_requests=100)
class Echo:
    def __init__(self) -> None:
        self.model = lambda data: data

    async def __call__(self, request: Request) -> Any:
        return self.model(await request.json())


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
    serve.run(Echo.bind(), route_prefix="/", logging_config=quiet)
    signal.sigwait({signal.SIGTERM})
    serve.shutdown()
    ray.shutdown()
