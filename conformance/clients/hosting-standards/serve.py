"""A container made with model-hosting-container-standards, AWS's package that vLLM and others use, and uvicorn."""

import os

import model_hosting_container_standards.sagemaker as standards
import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()


@app.get("/ping")
@standards.register_ping_handler
async def ping(request: Request) -> Response:
    return Response(status_code=200)


@app.post("/invocations")
@standards.register_invocation_handler
async def invocations(request: Request) -> Response:
    body = await request.body()
    if body == b"fail":
        raise ValueError("the body was to fail")
    return Response(body[::-1], media_type="application/octet-stream")


if __name__ == "__main__":
    standards.bootstrap(app)
    print(os.environ["GREETING"], flush=True)
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["SAGEMAKER_BIND_TO_PORT"]))
