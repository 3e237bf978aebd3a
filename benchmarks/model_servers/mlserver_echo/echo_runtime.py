"""The echo model behind MLServer: what comes in as a tensor goes out as one."""

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Echo(MLModel):
    async def load(self) -> bool:
        self._model = lambda data: data
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        outputs = [
            ResponseOutput(
                name=each.name, shape=each.shape, datatype=each.datatype, data=self._model(each.data)
            )
            for each in payload.inputs
        ]
        return InferenceResponse(model_name=self.name, id=payload.id, outputs=outputs)
