#!/bin/sh
# Checks the CUDA path on a machine with a GPU: sh benchmarks/gpu_check.sh [folder of the CSVs]
# Needs a CUDA build of torch with its triton; downloads nothing.
set -eu
cd "$(dirname "$0")/.."
PYTHONPATH=src exec timeout 480 "${PYTHON:-python3}" benchmarks/gpu_check.py --output "${1:-benchmarks/results}"
