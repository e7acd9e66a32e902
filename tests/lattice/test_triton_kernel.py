"""The CUDA kernel: on a GPU, interpreted on the CPU, and compiled for a GPU that is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

pytest.importorskip("triton")
from slackdlm.lattice import triton_kernel
from slackdlm.lattice.band import Columns

SUPPORT = Path(__file__).parents[1] / "support"


def run(*command: str, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        cwd=SUPPORT.parents[1],
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def run_cases(**environment: str) -> str:
    quiet = "ignore::RuntimeWarning"  # numpy, which plays the GPU in the interpreter, remarks on inf - inf
    cases = str(SUPPORT / "triton_cases.py")
    plugins = ["-p", "no:cacheprovider", "-p", "no:benchmark"]  # one that warns, if it is there
    return run("-m", "pytest", "-q", "-W", quiet, *plugins, cases, **environment)


def test_the_interpreted_kernel_agrees_with_enumeration_reference_and_cpu_kernel():
    assert "passed" in run_cases(TRITON_INTERPRET="1")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_kernel_on_a_gpu_agrees_with_enumeration_reference_and_cpu_kernel():
    assert "passed" in run_cases(TRITON_INTERPRET="0")


def test_the_kernel_compiles_for_an_h100():
    assert run(str(SUPPORT / "compile_triton.py"), TRITON_INTERPRET="0").count("cubin") == 7


@pytest.mark.skipif(
    torch.cuda.device_count() == 1, reason="a second GPU cannot be played beside one"
)
def test_the_kernel_is_launched_on_the_device_of_the_scores(monkeypatch: pytest.MonkeyPatch):
    current, launched = [0], []

    def exchange(index: int) -> int:
        before, current[0] = current[0], index
        return before

    class Kernel:
        def __getitem__(self, grid: tuple[int]):
            return lambda *tensors, **options: launched.append((grid, current[0]))

    monkeypatch.setattr(torch.cuda, "_exchange_device", exchange)
    monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", exchange)
    monkeypatch.setattr(triton_kernel, "lattice_kernel", Kernel())
    with FakeTensorMode():
        lengths = torch.zeros(3, dtype=torch.long, device="cuda:1")
        scores = torch.zeros(3, 5, 2, device="cuda:1"), torch.zeros(3, 5, device="cuda:1")
        result = triton_kernel.posteriors(Columns(*scores, lengths, lengths))
    assert launched == [((3,), 1)]
    assert current == [0]
    assert result.token.device == torch.device("cuda:1")
