"""Starts a script or module in several processes, as torchrun does, and shows all that is known if it fails."""

import os
import subprocess
import sys

TIMEOUT = 540
"""Seconds. A machine that is busy with other work may need many times the usual 20."""


def run_in_two_processes(*arguments: object) -> str:
    """:func:`run_in_processes` with two of them."""
    return run_in_processes(2, *arguments)


def run_in_processes(count: int, *arguments: object) -> str:
    """:func:`launch`, and its standard output.

    Raises:
        AssertionError: If it fails or takes too long, with the end of both output streams.
    """
    done = launch(count, *arguments)
    how = f"{done.args} ended with status {done.returncode}"
    assert done.returncode == 0, f"{how}\n{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
    return done.stdout


def launch(count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs ``torchrun --nproc-per-node COUNT ARGUMENTS``, whatever comes of it.

    The rendezvous is on a port that the kernel picks while the store binds it, and gloo on the loopback
    interface: no port is chosen first and bound later, and no host name is resolved.

    Raises:
        AssertionError: If it takes too long, with the end of both output streams.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launcher += ["--local-addr", "127.0.0.1", "--nproc-per-node", str(count)]
    variables = {k: v for k, v in os.environ.items() if k not in _OF_A_LAUNCHER}
    variables |= {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""}
    variables |= {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    if sys.platform == "linux":
        variables["GLOO_SOCKET_IFNAME"] = "lo"
    command = [*launcher, *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        process.terminate()  # the launcher ends its workers
        out, err = process.communicate()
        late = f"{command} was not done after {TIMEOUT} s\n{out[-4000:]}\n{err[-8000:]}"
        raise AssertionError(late) from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


_OF_A_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "ACCELERATE_TORCH_DEVICE"),
)
"""What a launcher around the tests would leave to us."""
