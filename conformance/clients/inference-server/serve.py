"""A container made with inference-server (its WSGI application, with hooks for a model) and gunicorn."""

import os
import sys
from pathlib import Path

import inference_server


@inference_server.plugin_hook()
def model_fn(model_dir: str):
    print(os.environ["GREETING"], flush=True)
    return lambda data: data[::-1]


@inference_server.plugin_hook()
def predict_fn(data: bytes, model) -> bytes:
    if data == b"fail":
        raise ValueError("the body was to fail")
    return model(data)


def application():
    """For gunicorn: the application with the hooks of this module."""
    import inference_server._plugin  # where a package would have an entry point, a program registers by hand

    inference_server._plugin.manager().register(sys.modules[__name__])
    return inference_server.create_app()


if __name__ == "__main__":
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    port = os.environ["SAGEMAKER_BIND_TO_PORT"]
    here = str(Path(__file__).parent)
    os.execv(gunicorn, [gunicorn, "--chdir", here, "--bind", f"127.0.0.1:{port}", "serve:application()"])
