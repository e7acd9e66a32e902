import copy
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from arms import CANVAS_LENGTH, CE, MIXED, SLACK_CTC, recipe_of, short
from torch import Tensor

from slackdlm.errors import SlackDLMError
from slackdlm.models.loaded import LoadedModel
from slackdlm.objectives import slack_ctc_loss
from slackdlm.training.config import ObjectiveConfig, TrainingConfig
from slackdlm.training.data import Sample
from slackdlm.training.draw import canvas_spec, collate
from slackdlm.training.journal import LossCurve
from slackdlm.training.prepare import Prepared
from slackdlm.training.run import train
from slackdlm.training.step_loss import sample_losses
from slackdlm.training.stream import EvalStream, TrainStream
from slackdlm.training.trainer import training_arguments

Build = Callable[[], LoadedModel]


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> Tensor:
    return torch.tensor([r["loss"] for r in journal(folder) if "loss" in r], dtype=torch.float64)


def run(
    loaded: LoadedModel,
    samples: list[Sample],
    folder: Path,
    *,
    objective: ObjectiveConfig = CE,
    training: TrainingConfig | None = None,
    eval_samples: list[Sample] | None = None,
) -> Path:
    train(
        recipe_of(objective, training or short()),
        output=folder,
        prepared=Prepared(loaded, samples, eval_samples or []),
        progress=False,
    )
    return folder


def batch_of(
    loaded: LoadedModel, samples: list[Sample], objective: ObjectiveConfig, size: int
) -> tuple[TrainStream, dict[str, Tensor]]:
    spec = canvas_spec(loaded, canvas_length=CANVAS_LENGTH, objective=objective)
    stream = TrainStream(samples, spec, num_steps=1, batch_size=size, seed=0, data_seed=0)
    return stream, collate([stream[n] for n in range(size)], spec=spec)


@torch.no_grad()
def test_ce_is_the_formula_of_llada(loaded: LoadedModel, samples: list[Sample]) -> None:
    """(1 / B) sum_b (1 / L) sum over masked i of CE_i / p_b, each row alone and unpadded."""
    stream, batch = batch_of(loaded, samples, CE, 8)
    ours = sample_losses(loaded.model, loaded.model, batch, spec=stream.spec).mean()
    total = 0.0
    for n in range(8):
        draw = stream[n]
        rate = 1 / (draw.loss_weight * CANVAS_LENGTH)
        ids = torch.cat([draw.prompt, draw.noisy])[None]
        logits = loaded.model(ids).logits[0, draw.prompt.numel() :].double()
        log_probs = logits - torch.logsumexp(logits, dim=1, keepdim=True)
        for i in range(CANVAS_LENGTH):
            if int(draw.noisy[i]) == loaded.mask_id:
                total -= float(log_probs[i, draw.clean[i]]) / rate / CANVAS_LENGTH / 8
    assert float(ours) == pytest.approx(total, rel=1e-5)


@torch.no_grad()
def test_slack_ctc_is_the_content_alignment_and_ce_on_the_padding(
    loaded: LoadedModel, samples: list[Sample]
) -> None:
    stream, batch = batch_of(loaded, samples, SLACK_CTC, 8)
    ours = sample_losses(loaded.model, loaded.model, batch, spec=stream.spec)
    for n in range(8):
        draw = stream[n]
        ids = torch.cat([draw.prompt, draw.noisy])[None]
        logits = loaded.model(ids).logits[:, draw.prompt.numel() :].double()
        expected = float(
            slack_ctc_loss(
                logits[:, : draw.ctc_length],
                draw.noisy[None, : draw.ctc_length],
                draw.target[None],
                torch.tensor([draw.ctc_length]),
                torch.tensor([draw.target.numel()]),
                mask_id=loaded.mask_id,
                slack_id=loaded.slack_id,
            )
        )
        log_probs = logits[0].log_softmax(1)
        for i in range(draw.ctc_length, CANVAS_LENGTH):
            if int(draw.noisy[i]) == loaded.mask_id:
                expected -= float(log_probs[i, loaded.pad_id])
        assert float(ours[n]) == pytest.approx(expected * draw.loss_weight, rel=1e-4, abs=1e-6)


def test_the_logged_loss_of_the_first_step_is_the_mean_of_its_draws(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    folder = run(new_loaded(), samples, tmp_path / "run", training=short(steps=1))
    loaded = new_loaded()
    stream, batch = batch_of(loaded, samples, CE, 8)
    expected = sample_losses(loaded.model, loaded.model, batch, spec=stream.spec).mean()
    torch.testing.assert_close(losses(folder)[0].float(), expected.detach())


@pytest.mark.parametrize("objective", [CE, SLACK_CTC, MIXED], ids=["ce", "slack_ctc", "mixed"])
def test_accumulation_does_not_change_the_trajectory(
    new_loaded: Build, samples: list[Sample], tmp_path: Path, objective: ObjectiveConfig
) -> None:
    runs = []
    for name, micro in (("whole", None), ("parts", 2)):
        loaded = new_loaded()
        training = short(steps=12, micro_batch_size=micro)
        folder = run(loaded, samples, tmp_path / name, objective=objective, training=training)
        runs.append((losses(folder), loaded.model.state_dict()))
    (whole, weights), (parts, other) = runs
    difference = (whole - parts).abs()
    assert float(difference.max()) < 1e-5
    assert float(difference.mean()) < 1e-6
    for name, value in weights.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=2e-5)


def test_without_slack_slack_ctc_and_mixed_train_as_ce_does(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    arms = {
        "ce": CE,
        "ctc": ObjectiveConfig(kind="slack_ctc"),
        "canvas": ObjectiveConfig(kind="slack_ctc", slack_region="canvas"),
        "mixed": ObjectiveConfig(kind="mixed", ctc_weight=0.3),
    }
    found = {
        name: losses(run(new_loaded(), samples, tmp_path / name, objective=objective))
        for name, objective in arms.items()
    }
    for name in ("ctc", "canvas", "mixed"):
        torch.testing.assert_close(found[name], found["ce"], rtol=1e-5, atol=1e-5)


def test_slack_makes_another_trajectory(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    ce = losses(run(new_loaded(), samples, tmp_path / "ce"))
    slack = losses(run(new_loaded(), samples, tmp_path / "slack", objective=SLACK_CTC))
    assert float((ce - slack).abs().max()) > 0.1


@pytest.mark.parametrize("objective", [CE, SLACK_CTC, MIXED], ids=["ce", "slack_ctc", "mixed"])
def test_the_losses_fall(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path, objective: ObjectiveConfig
) -> None:
    training = short(steps=80, eval_every=40, learning_rate=1e-2)
    folder = run(
        loaded,
        samples,
        tmp_path / "run",
        objective=objective,
        training=training,
        eval_samples=samples,
    )
    first, last = losses(folder)[:10].mean(), losses(folder)[-10:].mean()
    assert float(last) < 0.8 * float(first)
    evaluations = [record for record in journal(folder) if "eval_ce" in record]
    assert [record["step"] for record in evaluations] == [0, 40, 80]
    bounds = [record["eval_objective"] for record in evaluations]
    assert bounds == sorted(bounds, reverse=True)


def test_the_evaluation_bound_is_nats_per_response_token(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    loaded, spec = (
        new_loaded(),
        canvas_spec(new_loaded(), canvas_length=CANVAS_LENGTH, objective=CE),
    )
    training = short(steps=1, eval_every=1)
    folder = run(
        new_loaded(), samples, tmp_path / "run", training=training, eval_samples=samples[:5]
    )
    stream = EvalStream(samples[:5], spec)
    draws = [stream[n] for n in range(len(stream))]
    batch = collate(draws, spec=spec)
    weighted = sample_losses(loaded.model, loaded.model, batch, spec=spec).detach()
    expected = float(weighted.sum()) / sum(draw.target_length for draw in draws)
    record, last = [record for record in journal(folder) if "eval_ce" in record]
    assert (record["step"], last["step"]) == (0, 1)
    assert record["eval_ce"] == pytest.approx(expected, rel=1e-5)
    assert record["eval_objective"] == record["eval_ce"]


def test_without_evaluations_on_the_way_there_is_one_at_the_end(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    training = short(steps=3, eval_every=0)
    folder = run(loaded, samples, tmp_path / "run", training=training, eval_samples=samples[:3])
    assert [record["step"] for record in journal(folder) if "eval_ce" in record] == [3]


def test_evaluation_does_not_disturb_training(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    without = losses(run(new_loaded(), samples, tmp_path / "a"))
    training = short(eval_every=1)
    with_ = losses(
        run(new_loaded(), samples, tmp_path / "b", training=training, eval_samples=samples[:3])
    )
    assert torch.equal(without, with_)


def test_a_logger_calls_a_run_what_its_folder_is_called(tmp_path: Path) -> None:
    folder = tmp_path / "llada-8b-lora-ce" / "checkpoints"
    arguments = training_arguments(short(), folder=folder, evaluate=False)
    assert arguments.run_name == "llada-8b-lora-ce"


def test_only_matrices_decay(new_loaded: Build, samples: list[Sample], tmp_path: Path) -> None:
    """With a rate too small to learn anything, decay alone moves weights."""
    decayed = new_loaded()
    before = copy.deepcopy(decayed.model.state_dict())
    training = short(steps=1, learning_rate=1e-6, weight_decay=1e4, schedule="constant")
    run(decayed, samples, tmp_path / "run", training=training)
    for name, value in decayed.model.state_dict().items():
        factor = float((value / before[name]).median())
        assert factor == pytest.approx(1 - 1e-2 if value.ndim == 2 else 1.0, abs=1e-4), name


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[int(samples[4].response[0])] = math.nan
    with pytest.raises(
        SlackDLMError,
        match=r"stopped at step 1: the loss of samples \[.*\d.*\] is not finite; the samples of "
        r"this step are (\d+ \(made:\d+\)(, )?){8}; the last good checkpoint is not there yet; "
        r"lower training\.learning_rate",
    ):
        run(loaded, samples, tmp_path / "run")


def test_a_gradient_that_is_not_finite_stops_the_run_before_a_checkpoint(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    head: Any = loaded.model.get_output_embeddings()
    head.weight.register_hook(lambda grad: grad * math.inf)
    with pytest.raises(SlackDLMError, match=r"step 1: the gradient norm is not finite"):
        run(loaded, samples, tmp_path / "run", training=short(save_every=1))
    assert not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({}, "resume the run with a training.micro_batch_size below 8 or training.gradient_check"),
        (
            {"gradient_checkpointing": True, "micro_batch_size": 4},
            r"resume the run with a training.micro_batch_size below 4 \(",
        ),
        (
            {"gradient_checkpointing": True, "micro_batch_size": 1},
            r"begin a run with a shorter data.canvas_length \(",
        ),
    ],
)
def test_memory_that_is_used_up_names_what_needs_less(
    loaded: LoadedModel,
    samples: list[Sample],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    advice: str,
) -> None:
    def used_up(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore")

    monkeypatch.setattr("slackdlm.training.trainer.sample_losses", used_up)
    with pytest.raises(
        SlackDLMError,
        match=rf"at step 1: the GPU's memory is used up \(CUDA .* 2 GiB. More\); {advice}",
    ):
        run(loaded, samples, tmp_path / "run", training=short(**settings))


def test_a_loss_that_explodes_stops_the_run_and_names_a_checkpoint_from_before(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    training = short(steps=200, learning_rate=3.0, warmup_steps=150, max_grad_norm=0, save_every=5)
    training = replace(training, keep_checkpoints=99)
    with pytest.raises(
        SlackDLMError, match=r"the loss has grown from .* more than training\.max_"
    ) as e:
        run(loaded, samples, tmp_path / "run", training=training)
    step = int(str(e.value).split("stopped at step ")[1].split(":")[0])
    assert step == journal(tmp_path / "run")[-1]["step"] + 1
    assert 20 <= step < 200
    good = (step - 20) // 5 * 5
    assert f"the last good checkpoint is {tmp_path}/run/checkpoints/checkpoint-{good};" in str(
        e.value
    )


def test_growth_is_judged_by_medians_of_twenty_steps() -> None:
    calm = [1.0, 900.0] + [1.0] * 18
    assert LossCurve([*calm, *[2.0] * 20]).explosion(2.0, guessing=9.0) is None
    assert LossCurve([*calm, *[2.1] * 20]).explosion(0, guessing=9.0) is None
    assert LossCurve([*calm, *[2.1] * 19]).explosion(2.0, guessing=9.0) is None
    message = LossCurve([*calm, *[2.1] * 20]).explosion(2.0, guessing=9.0)
    assert message == (
        "the loss has grown from 1 (of the first 20) to 2.1 (median of the last 20 steps), more than"
        " training.max_loss_growth = 2 times"
    )


def test_a_run_that_begins_worse_than_guessing_is_measured_by_that() -> None:
    wild = [50.0] * 20
    assert LossCurve([*wild, *[11.9] * 20]).explosion(2.0, guessing=6.0) is None
    message = LossCurve([*wild, *[44.0] * 20]).explosion(2.0, guessing=6.0)
    assert message == (
        "the loss is 44 (median of the last 20 steps), more than training.max_loss_growth = 2 times the 6"
        " of guessing among all tokens"
    )


def test_a_run_that_explodes_at_once_is_stopped_and_no_spoilt_checkpoint_recommended(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    training = short(steps=60, learning_rate=2.0, max_grad_norm=0, save_every=15)
    training = replace(training, schedule="constant", keep_checkpoints=1)
    with pytest.raises(
        SlackDLMError,
        match=r"stopped at step 4\d: the loss is .* of guessing among all tokens; the samples of .* the last "
        r"good checkpoint is not kept, those there are of the last 20 steps \(training\.keep_ch",
    ):
        run(loaded, samples, tmp_path / "run", training=training)


def test_the_average_of_the_loss_is_exponential_and_survives_resuming() -> None:
    losses = [3.0, 1.0, 2.0]
    assert LossCurve(losses).average == pytest.approx((3.0 * 0.95 + 0.05) * 0.95 + 0.1)
    resumed = LossCurve(losses[:2])
    resumed.add(losses[2])
    assert resumed.average == LossCurve(losses).average


def test_the_evaluation_shows_its_parts(
    new_loaded: Build, samples: list[Sample], tmp_path: Path
) -> None:
    """Quarters of time average to the whole; slack is measured where there is some."""
    training = short(steps=60, eval_every=30, batch_size=7, save_every=0)
    folder = run(
        new_loaded(),
        samples,
        tmp_path / "slack",
        objective=SLACK_CTC,
        training=training,
        eval_samples=samples[:5],
    )
    first, *_, last = [record for record in journal(folder) if "eval_ce" in record]
    quarters = [last[f"eval_ce_t{name}"] for name in ("00_25", "25_50", "50_75", "75_100")]
    assert sum(quarters) / 4 == pytest.approx(last["eval_ce"])
    spec = canvas_spec(new_loaded(), canvas_length=CANVAS_LENGTH, objective=SLACK_CTC)
    stream = EvalStream(samples[:5], spec)
    draws = [stream[n] for n in range(len(stream))]
    masked = [(d.noisy == spec.mask_id)[: d.ctc_length] for d in draws]
    slack = sum(
        int((d.clean[: d.ctc_length] == spec.slack_id)[m].sum())
        for d, m in zip(draws, masked, strict=True)
    )
    drawn = slack / sum(int(m.sum()) for m in masked)
    assert last["eval_slack_share_drawn"] == first["eval_slack_share_drawn"]
    assert last["eval_slack_share_drawn"] == pytest.approx(drawn)
    assert 0 < last["eval_slack_share"] < 1
    assert last["eval_alignment_entropy"] > 0
    plain = run(new_loaded(), samples, tmp_path / "ce", training=short(), eval_samples=samples[:5])
    assert not any("eval_slack_share" in record for record in journal(plain))


def test_every_step_is_logged_with_average_and_speed(
    loaded: LoadedModel, samples: list[Sample], tmp_path: Path
) -> None:
    folder = run(loaded, samples, tmp_path / "run", training=short(steps=3))
    records = [record for record in journal(folder) if "loss" in record]
    assert records[0]["loss_average"] == records[0]["loss"]
    assert records[1]["loss_average"] == pytest.approx(
        0.95 * records[0]["loss"] + 0.05 * records[1]["loss"]
    )
    for record in records:
        positions = record["positions_per_second"] * record["seconds"]
        assert positions == pytest.approx(8 * CANVAS_LENGTH, rel=0.1)
