#!/bin/sh
# Checks the CUDA path on a machine with a GPU, part by part, each in its own process and under 10 minutes:
#   sh benchmarks/gpu_check.sh [folder of the CSVs] [parts: lattice lattice_time loss decoding training recipes]
# Needs a CUDA build of torch with its triton and this package's dependencies; downloads nothing. `recipes` writes 26 GB
# into the temporary folder and needs 100 GB of memory on the GPU for its largest case.
set -u
cd "$(dirname "$0")/.." || exit 1
output="${1:-benchmarks/results}"
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- lattice lattice_time loss decoding training recipes
failed=
for part in "$@"; do
  script="gpu_check.py --part $part"
  [ "$part" != recipes ] || script=gpu_recipes.py
  # shellcheck disable=SC2086
  PYTHONPATH="$PWD/src" timeout 540 "${PYTHON:-python3}" benchmarks/$script --output "$output" || failed="$failed $part"
done
[ -z "$failed" ] || { echo "failed or too slow:$failed" >&2; exit 1; }
