"""The echo model behind LitServe. Usage: python litserve_echo.py PORT"""

import sys
from typing import Any

import litserve


class Echo(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = lambda data: data

    def predict(self, data: Any) -> Any:
        return self.model(data)


if __name__ == "__main__":
    server = litserve.LitServer(Echo(), accelerator="cpu", fast_queue="--fast-queue" in sys.argv)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
