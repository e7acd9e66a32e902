import io
from pathlib import Path

import pytest
import torch
from arms import short
from rich.console import Console
from rich.progress import Progress
from transformers import TrainerControl, TrainerState

from slackdlm.models.adapter import new_adapter
from slackdlm.models.loaded import LoadedModel
from slackdlm.training.progress import ProgressCallback, evaluation_line, opening_line
from slackdlm.training.trainer import training_arguments


def test_an_evaluation_is_one_line_and_what_is_missing_is_left_out() -> None:
    figures = {"eval_ce": 3.25, "eval_objective": 2.5, "eval_ce_t00_25": 1.0, "eval_ce_t25_50": 5.5}
    plain = "step 40: eval CE 3.25 (by t 1 5.5), objective 2.5"
    assert evaluation_line(40, figures) == plain
    slack = {
        "eval_slack_share": 0.125,
        "eval_slack_share_drawn": 0.2,
        "eval_alignment_entropy": 0.31,
    }
    assert evaluation_line(40, figures | slack) == (
        f"{plain}; slack 12.5% expected, 20.0% drawn, alignment entropy 0.31 nats"
    )


def test_the_opening_line_says_what_is_trained_and_how_a_step_is_split(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    adapted = new_adapter(loaded, rank=2, alpha=4, dropout=0).model
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    total = sum(p.numel() for p in adapted.parameters())
    for weight in adapted.parameters():  # as ZeRO-3 leaves them
        weight.ds_numel = weight.numel()  # type: ignore[attr-defined]
        weight.data = torch.empty(0)
    arguments = training_arguments(short(micro_batch_size=2), folder=tmp_path, evaluate=False)
    assert opening_line(adapted, arguments) == (
        f"{trained:,} of {total:,} weights trained on cpu; 8 samples a step = 1 process x 4 passes x 2"
    )


@pytest.mark.parametrize("step", [0, 4])
def test_a_resumed_run_says_how_far_it_is_and_a_new_one_does_not(
    loaded: LoadedModel, tmp_path: Path, step: int
) -> None:
    arguments = training_arguments(short(), folder=tmp_path, evaluate=False)
    console = Console(file=io.StringIO(), record=True, width=100)
    callback = ProgressCallback(Progress(console=console), total=12)
    state = TrainerState(global_step=step, max_steps=12)
    callback.on_train_begin(arguments, state, TrainerControl(), model=loaded.model)
    assert ("resumed: 4 steps of 12 done already" in console.export_text()) == (step > 0)
