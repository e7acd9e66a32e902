"""What did it cost? Clock and peak memory of a device, for benchmarks."""

import csv
import ctypes
import io
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.autograd.profiler import profile

from slackdlm.atomic import write_text
from slackdlm.errors import ConfigError


class Spread(NamedTuple):
    """Quantiles of repeated runs, in their unit."""

    p20: float
    p50: float
    p80: float


def spread(values: Sequence[float]) -> Spread:
    """Quantiles of at least 2 values, interpolated between them."""
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return Spread(tenths[1], tenths[4], tenths[7])


def check_benchmark(*, repeats: int, device: str) -> None:
    """Refuse what cannot be timed.

    Raises:
        ConfigError: If there are too few repeats, or the device is unknown or missing.
    """
    if repeats < 2:
        raise ConfigError(f"bench: expected at least 2 repeats for quantiles, got {repeats}")
    if device not in ("cpu", "cuda") and not device.startswith("cuda:"):
        raise ConfigError(f"bench: unknown device {device!r}; use cpu or cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"bench: torch {torch.__version__} finds no CUDA device for {device!r}")


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """At least one row of figures as CSV, one column per key of the first; a missing number is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_rows(rows: Sequence[Any], path: Path) -> None:
    """Dataclass instances as CSV, one column per field."""
    write_csv(path, [asdict(row) for row in rows])


def now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def most_held(work: Callable[[], object], device: torch.device) -> int:
    """Most bytes that tensors made by ``work`` took at one time: exact, and the same in every run.

    On a CPU this is the allocator's account of what the calling thread takes and gives back; it does not hold what
    libraries take for themselves. Unlike the resident set of the process it neither wanders nor misses memory that was
    freed before and is taken again.
    """
    if device.type == "cuda":
        before = reset_peak_memory(device)
        work()
        return int((peak_memory(device) or 0.0) - (before or 0.0))
    os.environ.setdefault(
        "KINETO_LOG_LEVEL", "6"
    )  # the profiler tells of its start and end otherwise
    profiler: Any = profile(profile_memory=True)
    with profiler:
        work()
    changes = _allocations(profiler.kineto_results.experimental_event_tree())
    held: dict[int, int] = {}
    total = most = 0
    for _, address, num_bytes in sorted(changes, key=lambda change: change[0]):
        if num_bytes > 0:
            held[address] = num_bytes
            total += num_bytes
        else:
            total -= held.pop(address, 0)  # what was made before is not among what is held
        most = max(most, total)
    return most


def _allocations(events: Sequence[Any]) -> Iterator[tuple[int, int, int]]:
    """Time, address and bytes of what was taken, or given back where they are negative."""
    for event in events:
        if event.tag.name == "Allocation":
            _, fields = event.typed
            yield event.start_time_ns, fields.ptr, fields.alloc_size
        yield from _allocations(event.children)


def reset_peak_memory(device: torch.device) -> float | None:
    """Starts a new peak and returns the bytes in use, or None where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return float(torch.cuda.memory_allocated(device))
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
        return float(torch.cuda.max_memory_allocated(device))
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
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()
