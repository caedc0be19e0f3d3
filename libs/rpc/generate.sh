#!/usr/bin/env bash
# Writes the Python stubs of proto/foundry/v1 into the package qmd_rpc.v1; run through `make proto`.
# Refuses a contract that breaks clients of the last one, which proto/foundry.v1.binpb holds and which it then replaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${1:-libs/rpc/qmd_rpc/v1}
contract=${2:-proto/foundry.v1.binpb}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python -m grpc_tools.protoc -I proto --python_out="$scratch" --pyi_out="$scratch" --grpc_python_out="$scratch" \
    --descriptor_set_out="$scratch/contract" proto/foundry/v1/*.proto
if [[ -e "$contract" ]]; then
    python proto/breaking.py "$contract" "$scratch/contract"
fi
cp "$scratch/contract" "$contract"
# The stubs' package is qmd_rpc.v1, not the proto package: `foundry` is the front door's name in Python.
sed -i 's/^from foundry\.v1 import/from qmd_rpc.v1 import/' "$scratch"/foundry/v1/*
mkdir -p "$target"
cp "$scratch"/foundry/v1/* "$target"/
touch "$target/__init__.py"
