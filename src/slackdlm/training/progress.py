"""What does the terminal show while a model trains? A bar and a line per evaluation, on stderr."""

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
from rich.text import Text
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging

from slackdlm.errors import counted


class ProgressCallback(TrainerCallback):
    """Feeds a rich bar with the averaged loss and the speed; each evaluation is a line above it."""

    def __init__(self, bar: Progress, *, total: int) -> None:
        self.bar = bar
        self.task = bar.add_task("train", total=total, figures="")

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Say what is about to be done."""
        self.bar.console.print(Text(opening_line(kwargs["model"], args)))
        if state.global_step:
            done = counted(state.global_step, "step")
            self.bar.console.print(Text(f"resumed: {done} of {state.max_steps:,} done already"))

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
        if "loss_average" in logs:
            figures = f"loss {logs['loss_average']:.3f}  {logs['positions_per_second']:,.0f} pos/s"
            self.bar.update(self.task, completed=state.global_step, figures=figures)
        if "eval_ce" in logs:
            self.bar.console.print(Text(evaluation_line(state.global_step, logs)))


def evaluation_line(step: int, figures: dict[str, float]) -> str:
    """An evaluation on one line: bounds in nats per response token, quarters of time from clean to masked."""
    quarters = [value for name, value in figures.items() if name.startswith("eval_ce_t")]
    line = (
        f"step {step}: eval CE {figures['eval_ce']:.4g}"
        f" (by t {' '.join(f'{value:.3g}' for value in quarters)}),"
        f" objective {figures['eval_objective']:.4g}"
    )
    if "eval_slack_share" in figures:
        line += (
            f"; slack {figures['eval_slack_share']:.1%} expected,"
            f" {figures['eval_slack_share_drawn']:.1%} drawn,"
            f" alignment entropy {figures['eval_alignment_entropy']:.3g} nats"
        )
    return line


def opening_line(model: nn.Module, arguments: TrainingArguments) -> str:
    """What is trained by whom: weights, and how a step's samples are split."""
    # ZeRO-3 leaves a process nothing of a weight but its size.
    sizes = [(getattr(p, "ds_numel", p.numel()), p.requires_grad) for p in model.parameters()]
    trained = sum(size for size, is_trained in sizes if is_trained)
    total = sum(size for size, _ in sizes)
    processes, passes = arguments.world_size, arguments.gradient_accumulation_steps
    samples = arguments.per_device_train_batch_size
    return (
        f"{trained:,} of {total:,} weights trained on {arguments.device};"
        f" {counted(processes * passes * samples, 'sample')} a step ="
        f" {counted(processes, 'process')} x {counted(passes, 'pass')} x {samples}"
    )


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
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as bar:
        yield [ProgressCallback(bar, total=total)]
