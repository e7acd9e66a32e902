"""The CUDA kernel without a GPU: interpreted on the CPU, and compiled for one that is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent


def run(*command: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        cwd=HERE.parent.parent,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_interpreted_kernel_agrees_with_enumeration_reference_and_cpu_kernel():
    quiet = "ignore::RuntimeWarning"  # numpy, which plays the GPU here, remarks on inf - inf
    cases = str(HERE / "interpreted_triton.py")
    arguments = ["-m", "pytest", "-q", "-W", quiet, "-p", "no:cacheprovider", cases]
    assert "passed" in run(*arguments, TRITON_INTERPRET="1")


def test_the_kernel_compiles_for_an_h100():
    assert run(str(HERE / "compile_triton.py"), TRITON_INTERPRET="0").count("cubin") == 3
