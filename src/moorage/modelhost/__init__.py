"""The built-in model container: serves an `inference.py`, or a bare artifact, over the SageMaker contract.

    python -m moorage.modelhost serve

It imports nothing else of this package, so that it can run in an environment of its own.

The way of an invocation: `front` starts the processes (`supervision`) and `reception` accepts connections; when one
shows an invocation, `pool` gives it to a worker, socket and all (`worker_process`, `messages`). There `serving` reads
it (`connection`), `worker` runs it (`handlers`) and writes the `reply`, in one thread. The front does not see it.
"""
