"""The echo model behind BentoML. Usage: bentoml serve bentoml_echo:Echo --port PORT"""

from typing import Any

import bentoml


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Echo:
    def __init__(self) -> None:
        self.model = lambda data: data

    @bentoml.api(route="/predict")
    async def predict(self, data: dict[str, Any], /) -> dict[str, Any]:
        result: dict[str, Any] = self.model(data)
        return result
