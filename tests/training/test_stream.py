from collections import Counter
from dataclasses import replace

import pytest
import torch
from arms import CANVAS_LENGTH, CE, spec_of

from slackdlm.collapse import collapse
from slackdlm.errors import ConfigError
from slackdlm.training.config import ObjectiveConfig
from slackdlm.training.data import Sample
from slackdlm.training.draw import CanvasSpec, Draw, collate, loss_weight
from slackdlm.training.order import SampleOrder, seeded_generator
from slackdlm.training.stream import NUM_EVAL_LEVELS, EvalStream, TrainStream

SPEC = spec_of()
SLACK = replace(SPEC, objective=ObjectiveConfig(kind="slack_ctc", slack_ratio=(0.0, 1.0)))


def stream_of(samples: list[Sample], spec: CanvasSpec = SPEC, **changes: int) -> TrainStream:
    settings = {"num_steps": 25, "batch_size": 8, "seed": 0, "data_seed": 0, **changes}
    return TrainStream(samples, spec, **settings)


def assert_same(a: Draw, b: Draw) -> None:
    for name in ("prompt", "noisy", "clean", "target"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert (a.sample_id, a.ctc_length, a.loss_weight) == (b.sample_id, b.ctc_length, b.loss_weight)


def masked(draw: Draw, spec: CanvasSpec) -> torch.Tensor:
    return draw.noisy == spec.mask_id


def test_a_draw_depends_on_nothing_but_its_number(samples: list[Sample]) -> None:
    forward, backward = stream_of(samples, SLACK), stream_of(samples, SLACK)
    drawn = {n: backward[n] for n in reversed(range(60))}
    for n in range(60):
        assert_same(forward[n], drawn[n])


def test_every_epoch_sees_every_sample_once_in_another_order(samples: list[Sample]) -> None:
    stream, size = stream_of(samples), len(samples)
    epochs = [[stream.sample_id(e * size + i) for i in range(size)] for e in range(3)]
    assert all(Counter(epoch) == Counter(range(size)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("region", ["content", "canvas"])
def test_arms_share_order_rates_and_masks_whatever_their_slack(
    samples: list[Sample], region: str
) -> None:
    plain = stream_of(samples)
    objective = replace(SLACK.objective, slack_region=region)  # type: ignore[arg-type]
    arm = stream_of(samples, replace(SLACK, objective=objective))
    num_slack = 0
    for n in range(60):
        a, b = plain[n], arm[n]
        assert (a.sample_id, a.loss_weight) == (b.sample_id, b.loss_weight)
        assert torch.equal(masked(a, SPEC), masked(b, SPEC))
        num_slack += int((b.clean == SPEC.slack_id).sum())
    assert num_slack > 60


def test_slack_is_not_drawn_from_the_numbers_that_mask(samples: list[Sample]) -> None:
    stream = stream_of(samples, SLACK)
    draws = [stream[n] for n in range(200)]
    rates = torch.tensor([1 / draw.loss_weight for draw in draws])
    shares = torch.tensor([draw.ctc_length / draw.target_length for draw in draws])
    assert abs(float(torch.corrcoef(torch.stack([rates, shares]))[0, 1])) < 0.3


def test_the_data_seed_changes_the_order_and_the_seed_does_not(samples: list[Sample]) -> None:
    base, other_seed, other_data = (
        [stream_of(samples, **changes).sample_id(n) for n in range(40)]
        for changes in ({}, {"seed": 1}, {"data_seed": 1})
    )
    assert base == other_seed
    assert base != other_data


def test_the_seed_changes_the_masks(samples: list[Sample]) -> None:
    a, b = stream_of(samples), stream_of(samples, seed=1)
    assert any(not torch.equal(a[n].noisy, b[n].noisy) for n in range(10))


def test_a_sample_drawn_twice_in_one_step_is_masked_afresh(samples: list[Sample]) -> None:
    stream = stream_of(samples[:1])
    assert len({stream[n].loss_weight for n in range(8)}) == 8


def test_a_plain_canvas_is_the_response_and_padding(samples: list[Sample]) -> None:
    draw = stream_of(samples)[0]
    response = samples[draw.sample_id].response
    assert draw.clean.tolist() == response.tolist() + [SPEC.pad_id] * (
        CANVAS_LENGTH - response.numel()
    )
    assert draw.ctc_length == response.numel() == draw.target_length


def test_slack_in_the_content_leaves_the_padding_behind_it(samples: list[Sample]) -> None:
    stream = stream_of(samples, SLACK)
    for n in range(40):
        draw, response = stream[n], samples[stream.sample_id(n)].response.tolist()
        content, padding = draw.clean[: draw.ctc_length], draw.clean[draw.ctc_length :]
        assert (
            collapse(content.tolist(), slack_id=SPEC.slack_id) == response == draw.target.tolist()
        )
        assert (padding == SPEC.pad_id).all()
        assert draw.clean.numel() == CANVAS_LENGTH


def test_slack_in_the_canvas_may_fall_into_the_padding(samples: list[Sample]) -> None:
    stream = stream_of(
        samples, replace(SLACK, objective=replace(SLACK.objective, slack_region="canvas"))
    )
    behind = 0
    for n in range(40):
        draw, response = stream[n], samples[stream.sample_id(n)].response
        assert draw.ctc_length == CANVAS_LENGTH == draw.clean.numel()
        assert collapse(draw.clean.tolist(), slack_id=SPEC.slack_id) == draw.target.tolist()
        assert draw.target[: response.numel()].tolist() == response.tolist()
        assert (draw.target[response.numel() :] == SPEC.pad_id).all()
        assert draw.target_length == response.numel()
        is_padding = (draw.clean == SPEC.pad_id).cummax(0).values
        behind += int((draw.clean[is_padding] == SPEC.slack_id).sum())
    assert behind > 0


def test_slack_is_cut_at_the_room_on_the_canvas() -> None:
    sample = Sample(torch.tensor([5]), torch.arange(4, 4 + CANVAS_LENGTH - 1), "made")
    spec = replace(SLACK, objective=replace(SLACK.objective, slack_ratio=(1.0, 1.0)))
    draw = stream_of([sample], spec)[0]
    assert draw.ctc_length == CANVAS_LENGTH
    assert int((draw.clean == SPEC.slack_id).sum()) == 1


def test_a_response_longer_than_the_canvas_is_refused() -> None:
    sample = Sample(torch.tensor([5]), torch.full((CANVAS_LENGTH + 2,), 5), "made")
    with pytest.raises(ConfigError, match="2 tokens longer than the canvas"):
        stream_of([sample])[0]


def test_the_prompt_is_never_masked_and_only_masks_change_the_canvas(
    samples: list[Sample],
) -> None:
    stream = stream_of(samples, SLACK)
    for n in range(20):
        draw = stream[n]
        assert torch.equal(draw.prompt, samples[draw.sample_id].prompt)
        seen = ~masked(draw, SPEC)
        assert torch.equal(draw.noisy[seen], draw.clean[seen])


def test_a_batch_has_its_canvases_in_the_last_columns(samples: list[Sample]) -> None:
    stream = stream_of(samples, SLACK)
    draws = [stream[n] for n in range(6)]
    batch = collate(draws, spec=SLACK)
    for row, draw in enumerate(draws):
        used = draw.prompt.numel() + CANVAS_LENGTH
        ids, mask = batch["input_ids"][row], batch["attention_mask"][row]
        assert ids[-used:].tolist() == [*draw.prompt.tolist(), *draw.noisy.tolist()]
        assert (ids[:-used] == SPEC.pad_id).all()
        assert mask.tolist() == [0] * (len(mask) - used) + [1] * used
        assert batch["targets"][row, : draw.target.numel()].tolist() == draw.target.tolist()
        assert int(batch["target_lengths"][row]) == draw.target.numel()
        assert batch["ce_weights"][row].tolist() == [0.0] * draw.ctc_length + [1.0] * (
            CANVAS_LENGTH - draw.ctc_length
        )


def test_the_mixed_objective_weighs_content_and_padding(samples: list[Sample]) -> None:
    spec = replace(SLACK, objective=replace(SLACK.objective, kind="mixed", ctc_weight=0.25))
    draw = stream_of(samples, spec)[0]
    weights = collate([draw], spec=spec)["ce_weights"][0]
    assert weights.tolist() == [0.75] * draw.ctc_length + [1.0] * (CANVAS_LENGTH - draw.ctc_length)


def test_evaluation_times_are_one_even_grid(samples: list[Sample]) -> None:
    stream = EvalStream(samples, SPEC)
    rates = sorted(1 / stream[i].loss_weight for i in range(len(stream)))
    size = len(samples) * NUM_EVAL_LEVELS
    even = [(1 - CE.eps) * (i + 0.5) / size + CE.eps for i in range(size)]
    torch.testing.assert_close(torch.tensor(rates), torch.tensor(even), rtol=1e-6, atol=1e-9)


def test_evaluation_masks_are_the_same_in_every_arm(samples: list[Sample]) -> None:
    plain, arm = EvalStream(samples, SPEC), EvalStream(samples, SLACK)
    assert all(torch.equal(masked(plain[i], SPEC), masked(arm[i], SPEC)) for i in range(40))


def test_the_two_norms_differ_where_supervised_lengths_do() -> None:
    given = {"supervised_length": 4, "mean_supervised_length": 8.0}
    assert loss_weight(0.5, loss_norm="sequence", **given) == 1 / (0.5 * 4)
    assert loss_weight(0.5, loss_norm="token", **given) == 1 / (0.5 * 8)


def test_the_two_norms_agree_on_the_fixed_canvas(samples: list[Sample]) -> None:
    sequence, token = (
        stream_of(samples),
        stream_of(samples, replace(SPEC, objective=replace(CE, loss_norm="token"))),
    )
    assert [sequence[n].loss_weight for n in range(9)] == [token[n].loss_weight for n in range(9)]


def test_neighbouring_keys_give_unrelated_generators() -> None:
    def draw(*key: str | int) -> float:
        return float(torch.rand((), generator=seeded_generator(*key)))

    keys = [("noise", 0, 1), ("noise", 1, 0), ("slack", 0, 1), ("noise", 0, 2), ("noise", 1)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw("noise", 0, 1) == draw("noise", 0, 1)


def test_llada_padding_reaches_the_longest_of_the_step(samples: list[Sample]) -> None:
    stream = stream_of(samples, replace(SLACK, padding="llada", canvas_length=40))
    seen: set[int] = set()
    for step in range(8):
        draws = [stream[n] for n in range(8 * step, 8 * step + 8)]
        longest = max(draw.ctc_length for draw in draws)
        assert {draw.noisy.numel() for draw in draws} == {longest}
        assert stream.step_lengths(step) == [longest] * 8
        seen.add(longest)
        for draw in draws:
            assert (draw.clean[draw.ctc_length :] == SPEC.pad_id).all()
            assert draw.loss_weight == pytest.approx(1 / (draw.rate * longest))
    assert len(seen) > 1


def test_without_padding_the_canvas_is_the_response_and_its_slack(samples: list[Sample]) -> None:
    stream = stream_of(samples, replace(SLACK, padding="none", canvas_length=40))
    for n in range(24):
        draw = stream[n]
        assert draw.clean.numel() == draw.ctc_length
        response = samples[draw.sample_id].response.tolist()
        assert collapse(draw.clean.tolist(), slack_id=SPEC.slack_id) == response
        assert draw.loss_weight == pytest.approx(1 / (draw.rate * draw.ctc_length))


def test_token_norm_divides_by_the_supervised_positions_of_the_whole_step(
    samples: list[Sample],
) -> None:
    spec = replace(
        SLACK,
        padding="none",
        canvas_length=40,
        objective=replace(SLACK.objective, loss_norm="token"),
    )
    stream = stream_of(samples, spec)
    draws = [stream[n] for n in range(8, 16)]
    positions = sum(draw.noisy.numel() for draw in draws)
    for draw in draws:  # the trainer takes the mean over the 8 draws
        assert draw.loss_weight / 8 == pytest.approx(1 / (draw.rate * positions))


@pytest.mark.parametrize("padding", ["llada", "none"])
def test_a_canvas_of_another_length_has_the_same_masks_where_both_are(
    samples: list[Sample], padding: str
) -> None:
    fixed = stream_of(samples)
    other = stream_of(samples, replace(SPEC, padding=padding))  # type: ignore[arg-type]
    for n in range(20):
        a, b = fixed[n], other[n]
        length = b.noisy.numel()
        assert torch.equal(masked(a, SPEC)[:length], masked(b, SPEC))


def test_nothing_attends_to_or_is_scored_behind_a_shorter_canvas(samples: list[Sample]) -> None:
    spec = replace(SLACK, padding="none", canvas_length=40)
    stream = stream_of(samples, spec)
    draws = [stream[n] for n in range(8)]
    batch = collate(draws, spec=spec)
    prompts = max(draw.prompt.numel() for draw in draws)
    assert len({draw.noisy.numel() for draw in draws}) > 1
    for row, draw in enumerate(draws):
        end, start = prompts + draw.noisy.numel(), prompts - draw.prompt.numel()
        assert batch["attention_mask"][row].nonzero()[:, 0].tolist() == list(range(start, end))
        assert batch["input_ids"][row, prompts:end].tolist() == draw.noisy.tolist()
        assert not (batch["noisy"][row, draw.noisy.numel() :] == spec.mask_id).any()
        assert not batch["ce_weights"][row, draw.noisy.numel() :].any()


def test_evaluation_lengths_do_not_depend_on_batches(samples: list[Sample]) -> None:
    llada = EvalStream(samples, replace(SPEC, padding="llada"))
    longest = max(sample.response.numel() for sample in samples)
    assert {llada[n].noisy.numel() for n in range(len(llada))} == {longest}
    plain = EvalStream(samples, replace(SPEC, padding="none"))
    assert [plain[4 * n].noisy.numel() for n in range(5)] == [
        sample.response.numel() for sample in samples[:5]
    ]


LENGTHS = [(7 * index) % 41 for index in range(203)]


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_a_grouped_epoch_is_a_permutation_too(epoch: int) -> None:
    order = SampleOrder(LENGTHS, data_seed=0, batch_size=8)
    assert sorted(order[203 * epoch + i] for i in range(203)) == list(range(203))


def test_grouped_batches_hold_similar_lengths_in_random_order() -> None:
    def spreads(batch_size: int | None) -> list[int]:
        order = SampleOrder(LENGTHS, data_seed=0, batch_size=batch_size)
        batches = [[LENGTHS[order[8 * step + i]] for i in range(8)] for step in range(75)]
        return [max(batch) - min(batch) for batch in batches]

    assert sum(spreads(8)) < 0.2 * sum(spreads(None))
    order = SampleOrder(LENGTHS, data_seed=0, batch_size=8)
    firsts = [LENGTHS[order[8 * step]] for step in range(25)]
    assert firsts != sorted(firsts)


def test_a_grouped_order_is_a_function_of_its_number() -> None:
    forward = SampleOrder(LENGTHS, data_seed=3, batch_size=8)
    backward = SampleOrder(LENGTHS, data_seed=3, batch_size=8)
    drawn = {n: backward[n] for n in reversed(range(1000))}
    assert [forward[n] for n in range(1000)] == [drawn[n] for n in range(1000)]


def test_a_batch_larger_than_the_data_is_grouped_too(samples: list[Sample]) -> None:
    order = SampleOrder([3, 1, 2], data_seed=0, batch_size=8)
    assert Counter(order[n] for n in range(24)) == {0: 8, 1: 8, 2: 8}
