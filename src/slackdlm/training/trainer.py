"""How is one step taken? A ``transformers.Trainer`` with our loss, bound and checkpoints.

Loss of a step: the mean over the global batch of ``loss_b / (p_b * length)``. Every forward pass
holds equally many samples, so the mean over accumulation steps (taken by the Trainer) and over
processes (taken by the gradient reduction) of each pass's mean is exactly that.
"""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
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
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from slackdlm.errors import ConfigError, SlackDLMError, one_line
from slackdlm.models.loaded import recompute_activations
from slackdlm.training import checkpoints, journal
from slackdlm.training.config import TrainingConfig
from slackdlm.training.draw import collate
from slackdlm.training.engine import check_sharding, engine, use_bf16, whole_state
from slackdlm.training.evaluation_bound import evaluation_bound, metrics_of
from slackdlm.training.model_alignment import aligned
from slackdlm.training.processes import on_cpu, this_process
from slackdlm.training.step_loss import sample_losses
from slackdlm.training.stream import EvalStream, TrainStream

_NUM_NAMED = 16


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
    arguments = TrainingArguments(
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
        bf16=training.bf16 and engine() != "DEEPSPEED",  # else it has weights of bfloat16
        use_cpu=on_cpu(),
        seed=training.seed,
        # Fused: one pass over the weights on a GPU, and nothing beside them in memory.
        optim="adamw_torch" if on_cpu() else "adamw_torch_fused",
        logging_steps=1,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluate else "no",
        eval_steps=(training.eval_every or training.steps) if evaluate else None,
        save_strategy="steps" if training.save_every else "no",
        save_steps=training.save_every or training.steps,
        disable_tqdm=True,
        report_to=training.report_to,
        run_name=folder.resolve().parent.name,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        label_names=[],
        dataloader_pin_memory=torch.cuda.is_available(),
    )
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
        write_beside: Callable[[Path], None],
        callbacks: list[TrainerCallback],
    ) -> None:
        self.network = model
        self.train_stream = train_stream
        self.spec = train_stream.spec
        self.eval_streams = eval_streams
        self.config = config
        self.log_file = log_file
        self.write_beside = write_beside
        self.checkpoint_root = Path(str(args.output_dir))
        self.curve = journal.LossCurve(r["loss"] for r in journal.read(log_file) if "loss" in r)
        self._step_started = time.perf_counter()
        if config.gradient_checkpointing:
            recompute_activations(model)
        _keep_unpacked(model)
        super().__init__(
            model=model,
            args=args,
            data_collator=partial(collate, spec=self.spec),
            train_dataset=train_stream,
            eval_dataset=eval_streams.ce if eval_streams else None,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        _name_failing_logger(self.callback_handler.callbacks, config.report_to)
        check_sharding(self.accelerator.distributed_type)
        if config.bf16:
            use_bf16(self.accelerator)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; without enough memory it ends with the settings that need less of it.

        Raises:
            SlackDLMError: If a GPU's memory is used up.
        """
        try:
            return super().train(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            size, step = self.args.per_device_train_batch_size, self.state.global_step + 1
            smaller = [] if size == 1 else [f"a training.micro_batch_size below {size}"]
            if not self.config.gradient_checkpointing:
                smaller.append("training.gradient_checkpointing")
            advice = f"resume the run with {' or '.join(smaller)}"
            raise SlackDLMError(
                f"training stopped at step {step}: the GPU's memory is used up ({one_line(error)});"
                f" {advice if smaller else 'begin a run with a shorter data.canvas_length'}"
                " (--plan --memory GB says what fits)"
            ) from error

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> SequentialSampler:
        return SequentialSampler(self.train_stream)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Matrices decay; norm weights and biases do not, nor an adapter's row of ``<slack>``."""
        return [
            name
            for name, value in model.named_parameters()
            if value.ndim >= 2 and "trainable_tokens" not in name
        ]

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
        if "uniforms" in inputs:
            inputs = aligned(model, self.network, inputs, spec=self.spec, bf16=self.config.bf16)
        losses = sample_losses(model, self.network, inputs, spec=self.spec, bf16=self.config.bf16)
        if not bool(torch.isfinite(losses).all()):
            bad = inputs["sample_ids"][~torch.isfinite(losses)].tolist()
            self._stop(f"the loss of samples {bad} is not finite", step=self.state.global_step + 1)
        return losses.mean()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluation bound, in nats per response token, on fixed times and masks.

        ``eval_ce``: ``E[CE / p]`` without slack, the same quantity in every arm, and its quarters by
        diffusion time. ``eval_objective``: the arm's own. Both count the padding's loss and divide
        by the response tokens alone. With slack: how much of it the model expects at masked
        positions, how much was drawn, and how undecided its place is.
        """
        if self.eval_streams is None:
            return {}
        self.network.eval()
        ce, objective = self.eval_streams
        bound = partial(
            evaluation_bound,
            self.network,
            accelerator=self.accelerator,
            batch_size=self.args.per_device_train_batch_size,
            bf16=self.config.bf16,
        )
        ce_bound = bound(ce)
        metrics = metrics_of(ce_bound, ce_bound if objective.spec == ce.spec else bound(objective))
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        self._step_started = time.perf_counter()
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """One line of ``log.jsonl``; loggers get it too. The Trainer's own history stays empty."""
        if "train_runtime" in logs:
            return
        step = self.state.global_step
        if "grad_norm" in logs and not math.isfinite(logs["grad_norm"]):
            self._stop("the gradient norm is not finite", step=step)
        if "loss" in logs:
            self._describe_step(logs, step=step)
        if self.is_world_process_zero():
            journal.append(self.log_file, {"step": step, **logs})
        self.control = self.callback_handler.on_log(self.args, self.state, self.control, logs)

    def _describe_step(self, logs: dict[str, float], *, step: int) -> None:
        self.curve.add(logs["loss"])
        vocabulary: Any = self.network.config
        what = self.curve.explosion(
            self.config.max_loss_growth, guessing=math.log(vocabulary.vocab_size)
        )
        if what is not None:
            self._stop(what, step=step, spoilt=self.curve.window)
        now = time.perf_counter()
        seconds, self._step_started = now - self._step_started, now
        logs["loss_average"] = self.curve.average or 0.0
        logs["seconds"] = round(seconds, 4)
        logs["positions_per_second"] = round(
            sum(self.train_stream.step_lengths(step - 1)) / seconds, 1
        )

    def whole_state(self) -> dict[str, Any] | None:
        """All weights, on the main process, if an engine divided them; else None."""
        return whole_state(self.accelerator, self.model_wrapped)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        with checkpoints.loading(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with checkpoints.loading(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with checkpoints.loading(checkpoint):
            super()._load_rng_state(checkpoint)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self.checkpoint_root / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            checkpoints.discard(folder)
        self.accelerator.wait_for_everyone()
        with checkpoints.saving(folder):
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                self.write_beside(folder)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoints.seal(folder)
            checkpoints.keep_newest(self.checkpoint_root, self.config.keep_checkpoints)
        self._step_started = time.perf_counter()

    def _stop(self, what: str, *, step: int, spoilt: int = 0) -> None:
        """Ends the run; checkpoints of the last ``spoilt`` steps are not recommended."""
        root = self.checkpoint_root
        last = checkpoints.latest_complete(root, up_to=step - spoilt)
        if last is not None:
            where = str(last)
        elif checkpoints.latest_complete(root) is None:
            where = "not there yet"
        else:
            where = (
                f"not kept, those there are of the last {spoilt} steps (training.keep_checkpoints)"
            )
        ids = self.train_stream.step_sample_ids(step - 1)
        names = [f"{i} ({self.train_stream.samples[i].source})" for i in ids[:_NUM_NAMED]]
        more = f" and {len(ids) - _NUM_NAMED} more" if len(ids) > _NUM_NAMED else ""
        raise SlackDLMError(
            f"training stopped at step {step}: {what}; the samples of this step are"
            f" {', '.join(names)}{more}; the last good checkpoint is {where};"
            " lower training.learning_rate or look at these samples"
        )


def _name_failing_logger(callbacks: Sequence[TrainerCallback], name: str) -> None:
    """A logger that cannot start, for want of a login or a server, is one error of the recipe."""
    for callback in callbacks:
        if name != "none" and isinstance(callback, INTEGRATION_TO_CALLBACK[name]):
            callback.on_train_begin = _naming_errors(callback.on_train_begin, name)


def _naming_errors(begin: Callable[..., Any], name: str) -> Callable[..., Any]:
    def named(*args: Any, **kwargs: Any) -> Any:
        try:
            return begin(*args, **kwargs)
        except Exception as error:  # loggers raise whatever they like
            raise ConfigError(
                f"training.report_to: {name} cannot start ({type(error).__name__}: {one_line(error)});"
                " set it up, or set none, and resume the run"
            ) from error

    return named


def _keep_unpacked(model: nn.Module) -> None:
    """On a CPU bitsandbytes packs 4-bit weights anew when they are evaluated; packed ones give no gradients."""
    for module in model.modules():
        layer: Any = module
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
