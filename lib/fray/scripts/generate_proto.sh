#!/usr/bin/env bash
# Generates the Python code of fray.proto beside it; with --check, only tells whether it is fresh (exit 1 if not).
# Needs grpcio-tools, protoc-gen-py and protoc-gen-connectrpc, which `make setup-dev` installs.
set -euo pipefail
package=$(cd "$(dirname "$0")/.." && pwd)
proto=$package/src/fray/job/rpc/proto
python=${PYTHON:-$package/../../.venv/bin/python}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
PATH=$(dirname "$python"):$PATH "$python" -m grpc_tools.protoc -I "$proto" --py_out="$out" --connectrpc_out="$out" "$proto/fray.proto"
if [ "${1:-}" = --check ]; then
  for file in fray_pb.py fray_connect.py; do
    cmp -s "$out/$file" "$proto/$file" || { echo "$proto/$file is not what fray.proto generates; run: make proto"; exit 1; }
  done
else
  cp "$out"/fray_pb.py "$out"/fray_connect.py "$proto/"
fi
