#!/usr/bin/env bash
# Rewrites the locked requirement files from pyproject.toml and the .in files. Needs uv, in .venv or on the PATH.
# The files carry versions and hashes only, so that any index configured for pip serves them.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" # where requirements/install.py puts uv
compile() {
    compile_file pyproject.toml "$@"
}
compile_file() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --no-annotate "$@"
}
compile --group build --output-file requirements/core.txt
compile --group build --extra models --group demo --output-file requirements/demo.txt
compile --group build --extra models --extra postgres --group demo --group test --group lint --group compile \
    --output-file requirements/test.txt
for tools in uv go node sagemaker-sdk; do
    compile_file "requirements/$tools.in" --output-file "requirements/$tools.txt"
done
compile_file --group bench --output-file requirements/bench.txt
compile --extra sklearn --extra onnx --extra transformers --group frameworks --output-file requirements/frameworks.txt
for server in litserve bentoml mlserver ray; do
    compile_file "requirements/bench-$server.in" --output-file "requirements/bench-$server.txt"
done
