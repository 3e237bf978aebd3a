"""A model behind LitServe. Usage: python litserve_batches.py PORT MODEL FILE BATCH_SIZE PACKAGES

PACKAGES is a directory with the model's own packages, which are looked for behind those of LitServe's environment.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.append(sys.argv[5])

import litserve
import models
import numpy as np

SIZE = int(sys.argv[4])


class Model(litserve.LitAPI):
    def setup(self, device: str) -> None:
        sys.path.append(sys.argv[5])
        self.predict_rows = models.predictor(sys.argv[2], Path(sys.argv[3]))

    def decode_request(self, request):  # type: ignore[no-untyped-def] # an annotation would be taken for a schema
        return np.asarray(request[0])

    def batch(self, inputs: Any) -> Any:
        return np.stack(inputs)

    def predict(self, data: Any) -> Any:
        return self.predict_rows(data if SIZE > 1 else data.reshape(1, -1))

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output: Any) -> Any:
        return np.asarray(output).reshape(-1).tolist()


if __name__ == "__main__":
    options = {"max_batch_size": SIZE, "batch_timeout": 0.005} if SIZE > 1 else {}
    server = litserve.LitServer(Model(**options), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
