#!/usr/bin/env bash
# Rewrites the locked requirement files from pyproject.toml. Needs uv on the PATH.
# The files carry versions and hashes only, so that any index configured for pip serves them.
set -euo pipefail
cd "$(dirname "$0")/.."
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
compile_file requirements/sagemaker-sdk.in --output-file requirements/sagemaker-sdk.txt
compile_file --group bench --output-file requirements/bench.txt
for server in litserve bentoml mlserver ray; do
    compile_file "requirements/bench-$server.in" --output-file "requirements/bench-$server.txt"
done
