"""What did it cost? Clock and peak memory of a device, for benchmarks."""

import ctypes
import platform
import time
from pathlib import Path

import torch


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak_memory(device: torch.device) -> float | None:
    """Starts a new peak and returns the bytes in use, or None where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    _give_freed_memory_back()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _process_memory("VmRSS")


def _give_freed_memory_back() -> None:
    """What earlier work freed and the allocator kept would hide what the next one takes."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(device: torch.device) -> float | None:
    """Most bytes in use since the last reset, or None where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return _process_memory("VmHWM")


def _process_memory(key: str) -> float | None:
    """A figure of ``/proc/self/status`` in bytes."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return 1024.0 * int(line.split()[1])
    return None


def hardware(device: str) -> str:
    """Name of the processor, or of the GPU if ``device`` is one."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
