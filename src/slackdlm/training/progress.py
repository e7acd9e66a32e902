"""What does the terminal show while a model trains? One bar with the running loss, on stderr."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging


class ProgressCallback(TrainerCallback):
    """Feeds a rich bar; the loss shown is an exponential average over about 20 steps."""

    def __init__(self, bar: Progress, *, total: int) -> None:
        self.bar = bar
        self.task = bar.add_task("train", total=total, losses="")
        self.loss: float | None = None
        self.eval_text = ""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Move the bar to the current step."""
        logs = logs or {}
        if "loss" in logs:
            self.loss = (
                logs["loss"] if self.loss is None else 0.95 * self.loss + 0.05 * logs["loss"]
            )
        if "eval_ce" in logs:
            self.eval_text = (
                f"  eval CE {logs['eval_ce']:.3f}, objective {logs['eval_objective']:.3f}"
            )
        loss = "" if self.loss is None else f"loss {self.loss:.3f}"
        self.bar.update(self.task, completed=state.global_step, losses=loss + self.eval_text)


@contextmanager
def quiet_transformers() -> Generator[None]:
    """The library's own bars (one per saved checkpoint) off, and as they were afterwards."""
    enabled = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            transformers_logging.enable_progress_bar()


@contextmanager
def progress_bar(*, total: int, shown: bool) -> Generator[list[TrainerCallback]]:
    """The callbacks to hand to the trainer: one with a live bar, or none."""
    if not shown:
        yield []
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        yield [ProgressCallback(bar, total=total)]
