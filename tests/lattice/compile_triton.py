"""Run by test_triton_kernel.py: compiles the kernel for an H100 ahead of time, without one."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from slackdlm.lattice.triton_kernel import lattice_kernel, num_warps_for

POINTERS = {
    "token_ptr": "*fp32",
    "slack_ptr": "*fp32",
    "canvas_lengths_ptr": "*i32",
    "target_lengths_ptr": "*i32",
    "log_likelihood_ptr": "*fp64",
    "token_posterior_ptr": "*fp32",
    "slack_posterior_ptr": "*fp32",
    "num_positions": "i32",
    "band": "i32",
    "BLOCK": "constexpr",
    "NEEDS_POSTERIORS": "constexpr",
}

for block in (16, 1024, 4096):
    constants = {"BLOCK": block, "NEEDS_POSTERIORS": True}
    source = ASTSource(fn=lattice_kernel, signature=POINTERS, constexprs=constants)
    kernel = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps_for(block)}
    )
    sys.stdout.write(f"{block}: cubin of {len(kernel.asm['cubin'])} bytes\n")
