#!/usr/bin/env bash
# Installs the languages that the clients need and that are not here: from Debian, or, where Debian 12's are too old
# (Go, Node), from PyPI into conformance/.build/tools, where the runner finds them.
set -euo pipefail
cd "$(dirname "$0")"

newer_than() { # PROGRAM FIRST-THAT-WILL-DO VERSION
    command -v "$1" >/dev/null && [ "$(printf '%s\n' "$2" "$3" | sort -V | head -1)" = "$2" ]
}
number() { grep -oE '[0-9]+(\.[0-9]+)+' | head -1; }

packages=()
newer_than java 17 "$(java --version 2>/dev/null | number)" || packages+=(default-jdk-headless)
command -v mvn >/dev/null || packages+=(maven)
wheels=()
newer_than go 1.25 "$(go version 2>/dev/null | number)" || wheels+=(go)
newer_than node 20 "$(node --version 2>/dev/null | number)" && command -v npm >/dev/null || wheels+=(node)

if [ ${#packages[@]} -gt 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
for wheel in "${wheels[@]}"; do
    ../.venv/bin/python ../requirements/install.py .build/tools "../requirements/$wheel.txt"
done
