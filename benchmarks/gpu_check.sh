#!/bin/sh
# Checks the CUDA path on a machine with a GPU, part by part, each in its own process and under 10 minutes:
#   sh benchmarks/gpu_check.sh [folder of the CSVs] [parts: lattice lattice_time loss decoding training]
# Needs a CUDA build of torch with its triton, and transformers, accelerate, peft, numba, jaxtyping; downloads nothing.
set -u
cd "$(dirname "$0")/.." || exit 1
output="${1:-benchmarks/results}"
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- lattice lattice_time loss decoding training
failed=
for part in "$@"; do
  PYTHONPATH="$PWD/src" timeout 540 "${PYTHON:-python3}" benchmarks/gpu_check.py --output "$output" --part "$part" \
    || failed="$failed $part"
done
[ -z "$failed" ] || { echo "failed or too slow:$failed" >&2; exit 1; }
