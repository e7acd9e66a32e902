"""Independent jobs of a study in parallel processes, with one progress bar each."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for_end
from typing import Generic, TypeVar

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

J = TypeVar("J")
_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Job(Generic[J]):
    """One piece of work and how to see how far it is."""

    label: str
    """Name of its bar."""
    argument: J
    """What the worker function gets; pickled."""
    total: int
    """Length of its bar."""
    done: Callable[[], int]
    """How much is done, read in the parent from the files that the job writes."""


def run_jobs(function: Callable[[J], None], jobs: Sequence[Job[J]], *, console: Console) -> None:
    """Run every job in a process of its own, as many at a time as there are cores.

    Each process computes on one thread: with models this small a second one gains little on an idle machine and
    costs a factor of two on a busy one (docs/results/004-threads-per-worker.md), and
    the numbers do not depend on the number of cores.

    Args:
        function: Module-level function that does one job.
        jobs: The work.
        console: Where the bars are drawn.

    Raises:
        Exception: The first that a job raised; jobs not yet begun are dropped.
    """
    num_workers = min(os.cpu_count() or 1, len(jobs))
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    )
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
    )
    with pool, Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = [progress.add_task(job.label, total=job.total, start=False) for job in jobs]
        futures = [pool.submit(function, job.argument) for job in jobs]
        try:
            _watch(futures, jobs, progress, bars)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start_worker() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed sends no signal: without this its workers would go on writing to its folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_end([parent.sentinel])
        os._exit(1)


def _watch(
    futures: Sequence[Future[None]],
    jobs: Sequence[Job[J]],
    progress: Progress,
    bars: Sequence[TaskID],
) -> None:
    pending = set(futures)
    while pending:
        finished, pending = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_EXCEPTION)
        for future, job, bar in zip(futures, jobs, bars, strict=True):
            if future.running() or future.done():
                progress.start_task(bar)
            progress.update(
                bar, completed=job.total if future.done() else min(job.done(), job.total)
            )
        for future in finished:
            future.result()


def num_lines(file: os.PathLike[str]) -> int:
    """Lines written to a file so far; 0 if there is none yet."""
    try:
        with open(file, "rb") as stream:
            return sum(1 for _ in stream)
    except FileNotFoundError:
        return 0
