"""How is one step taken? A ``transformers.Trainer`` with our loss, bound and checkpoints.

Loss of a step: the mean over the global batch of ``loss_b / (p_b * length)``. Every forward pass
holds equally many samples, so the mean over accumulation steps (taken by the Trainer) and over
processes (taken by the gradient reduction) of each pass's mean is exactly that.
"""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import DistributedType
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from slackdlm.errors import SlackDLMError
from slackdlm.training import checkpoints, journal
from slackdlm.training.config import TrainingConfig
from slackdlm.training.processes import on_cpu, this_process
from slackdlm.training.step_loss import sample_losses
from slackdlm.training.stream import EvalStream, TrainStream, collate


class EvalStreams(NamedTuple):
    """The evaluation draws: the same masks, once without slack and once as the arm trains."""

    ce: EvalStream
    """``K = 0``, cross-entropy: comparable between arms."""
    objective: EvalStream
    """The arm's own slack and objective."""


def training_arguments(
    training: TrainingConfig, *, folder: Path, evaluate: bool
) -> TrainingArguments:
    """The Trainer's own settings: a line of log each step, no bars, our batch split evenly.

    Args:
        training: The recipe's block.
        folder: Where checkpoints go.
        evaluate: Whether there are evaluation samples.

    Returns:
        The arguments for this process.

    Raises:
        ConfigError: If the global batch does not split evenly over processes and passes.
    """
    num_processes = this_process().num_processes
    num_accumulation = training.num_accumulation(num_processes=num_processes)
    # Renamed in transformers 5.
    recompute = (
        "activation_checkpointing"
        if "activation_checkpointing" in TrainingArguments.__dataclass_fields__
        else "gradient_checkpointing"
    )
    settings: dict[str, Any] = dict(
        output_dir=str(folder),
        max_steps=training.steps,
        per_device_train_batch_size=training.batch_size // num_accumulation // num_processes,
        gradient_accumulation_steps=num_accumulation,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps,
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(
            training.schedule, training.schedule
        ),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        bf16=training.bf16,
        use_cpu=on_cpu(),
        seed=training.seed,
        optim="adamw_torch",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=(training.eval_every or training.steps) if evaluate else None,
        save_strategy="steps" if training.save_every else "no",
        save_steps=training.save_every or training.steps,
        disable_tqdm=True,
        report_to=training.report_to,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        label_names=[],
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    settings[recompute] = training.gradient_checkpointing
    arguments = TrainingArguments(**settings)
    # One process drives one device; the Trainer would split batches over all visible ones.
    _ = arguments.device
    arguments._n_gpu = min(arguments.n_gpu, 1)  # pyright: ignore[reportPrivateUsage]
    return arguments


class SlackTrainer(Trainer):
    """One arm's training loop; everything that decides numbers is in the stream and the loss."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        args: TrainingArguments,
        *,
        train_stream: TrainStream,
        eval_streams: EvalStreams | None,
        config: TrainingConfig,
        log_file: Path,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.network = model
        self.train_stream = train_stream
        self.spec = train_stream.spec
        self.eval_streams = eval_streams
        self.config = config
        self.log_file = log_file
        self.checkpoint_root = Path(str(args.output_dir))
        self._step_started = time.perf_counter()
        super().__init__(
            model=model,
            args=args,
            data_collator=partial(collate, spec=self.spec),
            train_dataset=train_stream,
            eval_dataset=eval_streams.ce if eval_streams else None,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> SequentialSampler:
        return SequentialSampler(self.train_stream)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices decay; norm weights and biases do not."""
        return [name for name, value in model.named_parameters() if value.ndim >= 2]

    def floating_point_ops(self, inputs: dict[str, Tensor | Any]) -> int:
        """Not counted: the count walks all parameters at every step."""
        return 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor | Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Mean weighted loss of one forward pass; the Trainer averages passes and processes."""
        losses = sample_losses(model, self.network, inputs, spec=self.spec, bf16=self.config.bf16)
        if not bool(torch.isfinite(losses).all()):
            bad = inputs["sample_ids"][~torch.isfinite(losses)].tolist()
            self._stop(f"the loss of samples {bad} is not finite", step=self.state.global_step + 1)
        return losses.mean()

    @torch.no_grad()
    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluation bound, in nats per response token, on fixed times and masks.

        ``eval_ce``: ``E[CE / p]`` without slack, the same quantity in every arm.
        ``eval_objective``: the arm's own. Both count the padding's loss and divide by the response
        tokens alone.
        """
        if self.eval_streams is None:
            return {}
        self.network.eval()
        metrics = {"eval_ce": self._bound(self.eval_streams.ce)}
        same = self.eval_streams.objective.spec == self.eval_streams.ce.spec
        metrics["eval_objective"] = (
            metrics["eval_ce"] if same else self._bound(self.eval_streams.objective)
        )
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._step_started = time.perf_counter()
        return metrics

    def _bound(self, stream: EvalStream) -> float:
        size, process = self.args.per_device_train_batch_size, self.args.process_index
        total = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        for start in range(0, len(stream), size * self.args.world_size):
            first = start + size * process
            draws = [stream[index] for index in range(first, min(first + size, len(stream)))]
            if not draws:  # sharded weights are gathered by all processes together
                draws = [replace(stream[0], loss_weight=0.0, target_length=0)]
            batch: Any = self._prepare_inputs(collate(draws, spec=stream.spec))
            with self.accelerator.autocast():
                losses = sample_losses(
                    self.network, self.network, batch, spec=stream.spec, bf16=self.config.bf16
                )
            total[0] += losses.double().sum()
            total[1] += sum(draw.target_length for draw in draws)
        gathered: Any = self.accelerator.reduce(total, reduction="sum")
        return float(gathered[0] / gathered[1])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One line of ``log.jsonl``; loggers get it too. The Trainer's own history stays empty."""
        if "train_runtime" in logs:
            return
        if "grad_norm" in logs and not torch.isfinite(torch.tensor(logs["grad_norm"])):
            self._stop("the gradient norm is not finite", step=self.state.global_step)
        if "loss" in logs:
            now = time.perf_counter()
            logs["seconds"] = round(now - self._step_started, 4)
            self._step_started = now
        if self.is_world_process_zero():
            journal.append(self.log_file, {"step": self.state.global_step, **logs})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def whole_state(self) -> dict[str, Any] | None:
        """All weights, gathered on the main process if an engine sharded them; else None."""
        if self.accelerator.distributed_type in (
            DistributedType.FSDP,
            DistributedType.DEEPSPEED,
        ):
            return self.accelerator.get_state_dict(self.model_wrapped)
        self.accelerator.wait_for_everyone()
        return None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self.checkpoint_root / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            checkpoints.discard(folder)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.seal(folder)
            checkpoints.keep_newest(self.checkpoint_root, self.config.keep_checkpoints)
        self._step_started = time.perf_counter()

    def _stop(self, what: str, *, step: int) -> None:
        last = checkpoints.latest_complete(self.checkpoint_root)
        raise SlackDLMError(
            f"training stopped at step {step}: {what}; the last checkpoint is"
            f" {last or 'not there yet'};"
            " lower training.learning_rate or look at these samples"
        )
