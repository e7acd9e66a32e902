"""Run by test_triton_kernel.py: compiles the kernel for an H100 ahead of time, without one."""

import sys

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from slackdlm.lattice.triton_kernel import MAX_BLOCK, lattice_kernel, num_warps_for

SIGNATURE = {
    "token_ptr": "*{0}",
    "slack_ptr": "*{0}",
    "canvas_lengths_ptr": "*i32",
    "target_lengths_ptr": "*i32",
    "log_likelihood_ptr": "*fp64",
    "token_posterior_ptr": "*{0}",
    "slack_posterior_ptr": "*{0}",
    "num_positions": "i32",
    "band": "i32",
    "BLOCK": "constexpr",
    "NEEDS_POSTERIORS": "constexpr",
}
SHARED_MEMORY = 232_448  # bytes that one program may have on an H100

for dtype, block, needs_posteriors, constants in (
    ("fp32", 16, True, {}),
    ("fp32", 16, True, {"band": 1}),  # Triton compiles the number 1 in: no slack in the batch
    ("fp32", 1024, True, {}),
    ("fp32", 4096, True, {}),
    ("fp32", MAX_BLOCK, True, {}),
    ("fp32", MAX_BLOCK, False, {}),
    ("fp64", MAX_BLOCK, True, {}),
):
    constants = {"BLOCK": block, "NEEDS_POSTERIORS": needs_posteriors, **constants}
    signature = {name: kind.format(dtype) for name, kind in SIGNATURE.items()}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(fn=lattice_kernel, signature=signature, constexprs=constants)
    kernel = triton.compile(
        source, target=GPUTarget("cuda", 90, 32), options={"num_warps": num_warps_for(block)}
    )
    if kernel.metadata.shared > SHARED_MEMORY:
        sys.exit(f"{dtype}, {block}: {kernel.metadata.shared} bytes of shared memory")
    # Between the stores on the way forward and the loads on the way back.
    if needs_posteriors and "bar.sync" not in kernel.asm["ptx"]:
        sys.exit(f"{dtype}, {block}: nothing orders the two passes")
    sys.stdout.write(f"{dtype}, {block}: cubin of {len(kernel.asm['cubin'])} bytes\n")
