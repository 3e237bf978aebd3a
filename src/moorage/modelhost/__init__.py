"""The built-in model container: serves an `inference.py`, or a bare artifact, over the SageMaker contract.

    python -m moorage.modelhost serve

It imports nothing else of this package, so that it can run in an environment of its own. The way of an
invocation: `app` (HTTP) -> `pool` (a free worker) -> `frames` (a socket pair) -> `worker` -> `handlers`.
"""
