#!/usr/bin/env bash
# Resolves the whole tree for both profiles; run through `make lock`.
# A CPU torch is looked for where PIP_FIND_LINKS points, else on PyTorch's CPU wheel index.
set -euo pipefail
cd "$(dirname "$0")/.."

members=$(sed -n 's/^name = "\(.*\)"/\1/p' libs/*/pyproject.toml services/*/pyproject.toml foundry/pyproject.toml)
resolve() {
    local profile=$1
    shift
    # shellcheck disable=SC2046
    uv pip compile pyproject.toml --extra "$profile" --group dev --quiet --generate-hashes --python-version 3.11 \
        --python-platform x86_64-manylinux_2_28 --custom-compile-command "make lock" --no-annotate \
        $(printf -- '--no-emit-package %s ' $members) "$@" --output-file "requirements/$profile.lock" >/dev/null
    echo "requirements/$profile.lock: $(grep -c '==' "requirements/$profile.lock") packages"
}

torch_source=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
if [[ -n "${PIP_FIND_LINKS:-}" ]]; then
    torch_source=(--find-links "$PIP_FIND_LINKS")
fi
resolve cpu --override requirements/cpu-overrides.txt "${torch_source[@]}"
resolve gpu
