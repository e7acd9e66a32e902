"""Ends, dtypes, waiting for the device: what the loop does beside LLaDA's schedule."""

import copy
import dataclasses
from itertools import pairwise

import pytest
import torch
from decoded_alone import decode_as_alone
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from slackdlm.errors import ConfigError
from slackdlm.models.chat import encode_prompt
from slackdlm.sampling.decoding import Decoding
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.prediction import Predictor
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.sampling.strategies import STRATEGIES

PROMPTS = ["tell twice cat", "tell thrice red boat softly often cat", "tell twice"]
BOUNDS = {"threshold": 0.05, "entropy_bound": 4.0}


def config(**changes) -> SamplerConfig:
    return SamplerConfig(**{"canvas_length": 24, "trace": True} | changes)


def fond_of(toy, write):
    """The toy model with other output rows: ``write(head, usual, scale)``, ``usual`` the mean hidden state."""
    fond = dataclasses.replace(toy, model=copy.deepcopy(toy.model))
    with torch.no_grad():
        output = toy.model(torch.full((1, 30), toy.mask_id))
        usual = output.last_hidden_state[0].mean(0)
        scale = output.logits.max(-1).values.mean() / usual.square().sum()
        write(fond.model.get_output_embeddings().weight, usual, scale)
    return fond


@pytest.fixture(scope="module")
def ending(toy):
    """Fond of ending: a good part of its tokens are an end."""

    def write(head, usual, scale):
        for token in toy.eos_ids:
            head[token] = usual * scale + 0.1 * head[token]

    return fond_of(toy, write)


@pytest.fixture(scope="module")
def slacking(toy):
    """Fond of slack."""

    def write(head, usual, scale):
        head[toy.slack_id] += 1.6 * usual * scale

    return fond_of(toy, write)


@settings(max_examples=12, deadline=None)
@given(
    block=st.sampled_from([None, 6, 8, 24]),
    temperature=st.sampled_from([0.5, 1.0, 1.5]),
    seed=st.integers(0, 1000),
    kind=st.sampled_from([None, "shift", "drop"]),
)
def test_stopping_early_changes_no_text(toy, block, temperature, seed, kind):
    intervention = None if kind is None else ShiftIntervention(0.2, kind=kind, seed=seed)
    settings_ = {"block_length": block, "temperature": temperature, "seed": seed}
    full = Sampler(toy, config(**settings_), intervention).generate(PROMPTS)
    short = Sampler(toy, config(**settings_, early_stop=True), intervention).generate(PROMPTS)
    assert [a.text for a in short] == [a.text for a in full]
    assert [a.tokens for a in short] == [a.tokens for a in full]
    for early, late in zip(short, full, strict=True):
        assert early.num_forwards <= late.num_forwards
        assert toy.mask_id not in early.canvas


def test_stopping_early_saves_forwards_and_fills_behind_the_end(ending):
    settings_ = {"block_length": 6, "temperature": 1.0}
    full = Sampler(ending, config(**settings_)).generate(PROMPTS * 4)
    short = Sampler(ending, config(**settings_, early_stop=True)).generate(PROMPTS * 4)
    assert sum(a.num_forwards for a in short) < sum(a.num_forwards for a in full)
    for answer in short:
        end = next((i for i, t in enumerate(answer.canvas) if t in ending.eos_ids), 24)
        written = {commit.position for step in answer.steps for commit in step}
        rest = set(range(24)) - written
        assert all(i > end and answer.canvas[i] == ending.pad_id for i in rest)


def test_stopping_early_leaves_batch_mates_alone(ending):
    cfg = config(block_length=12, temperature=1.0, early_stop=True, batch_size=6)
    answers = decode_as_alone(ending, cfg, PROMPTS * 2)
    assert len({a.num_forwards for a in answers}) > 1


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_a_forbidden_end_of_text_is_never_proposed(ending, temperature):
    cfg = config(temperature=temperature)
    assert any(ending.pad_id in a.canvas for a in Sampler(ending, cfg).generate(PROMPTS * 4))
    cfg = config(temperature=temperature, forbid_end_of_text=True)
    assert not any(ending.pad_id in a.canvas for a in Sampler(ending, cfg).generate(PROMPTS * 4))


@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("remasking", ["low_confidence", "entropy", "margin"])
def test_delayed_ends_come_last_in_a_step(ending, temperature, remasking):
    """At any temperature; LLaDA's published file forgets one of its two ends above 0."""

    def in_order(delay_end):
        cfg = config(steps=1, temperature=temperature, remasking=remasking, delay_end=delay_end)
        answers = Sampler(ending, cfg).generate(PROMPTS * 2)
        return [[c.token in ending.eos_ids for c in a.steps[0]] for a in answers]

    assert all(any(row) and row == sorted(row) for row in in_order(True))
    assert not all(row == sorted(row) for row in in_order(False))


def test_delayed_slack_comes_last_and_takes_no_share_of_the_confidence(slacking):
    def decoded(**options):
        cfg = config(steps=1, temperature=1.0, **options)
        return Sampler(slacking, cfg).generate(PROMPTS * 2)

    def in_order(answers):
        return [[c.token == slacking.slack_id for c in a.steps[0]] for a in answers]

    delayed, plain = decoded(delay_slack=True), decoded()
    assert any(any(row) for row in in_order(delayed))
    assert all(row == sorted(row) for row in in_order(delayed))
    assert not all(row == sorted(row) for row in in_order(plain))
    # One step: the tokens are the same, and content is surer once slack is out of the sum.
    assert [a.canvas for a in delayed] == [a.canvas for a in plain]
    for ours, theirs in zip(delayed, plain, strict=True):
        surer = {c.position: c.confidence for c in ours.steps[0] if c.token != slacking.slack_id}
        assert surer
        for commit in theirs.steps[0]:
            if commit.token != slacking.slack_id:
                assert surer[commit.position] > commit.confidence


def test_a_delayed_end_is_below_every_threshold(ending):
    cfg = config(remasking="threshold", bound=1e-6, temperature=1.0, delay_end=True)
    for answer in Sampler(ending, cfg).generate(PROMPTS):
        first, *later = [[c.token in ending.eos_ids for c in step] for step in answer.steps]
        assert not any(first)
        assert all(not any(step) or len(step) == 1 for step in later)
        assert len(first) < 24, "the ends it proposed wait"


@pytest.mark.parametrize("remasking", ["low_confidence", "random"])
def test_cells_of_a_step_are_spaced_while_there_are_enough(toy, remasking):
    cfg = config(steps=6, spacing=3, remasking=remasking)
    for answer in Sampler(toy, cfg).generate(PROMPTS):
        assert [len(step) for step in answer.steps] == [4] * 6
        # Three cells taken stand in the way of at most 15 of 24: the first step always has room.
        places = sorted(commit.position for commit in answer.steps[0])
        assert all(b - a >= 3 for a, b in pairwise(places))
    plain = Sampler(toy, config(steps=6, remasking=remasking)).generate(PROMPTS)
    gaps = [
        b - a
        for answer in plain
        for places in [sorted(commit.position for commit in answer.steps[0])]
        for a, b in pairwise(places)
    ]
    assert min(gaps) < 3, "without it they are not"


def test_spacing_changes_nothing_at_one_cell_a_step(toy):
    settings_ = {"temperature": 1.0, "seed": 3}
    spread = Sampler(toy, config(spacing=5, **settings_)).generate(PROMPTS)
    plain = Sampler(toy, config(**settings_)).generate(PROMPTS)
    assert [a.canvas for a in spread] == [a.canvas for a in plain]


def test_an_impossible_spacing_is_named():
    with pytest.raises(ConfigError, match="spacing: expected at least 1, got 0"):
        config(spacing=0)
    with pytest.raises(ConfigError, match=r"threshold takes the surest cells .* got spacing=4"):
        config(remasking="threshold", bound=0.9, spacing=4)


@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_guidance_moves_away_from_the_prediction_without_the_prompt(toy, guidance):
    answer = Sampler(toy, config(canvas_length=1, guidance=guidance)).generate(PROMPTS[:1])[0]
    ids = encode_prompt(toy.tokenizer, [{"role": "user", "content": PROMPTS[0]}])
    with torch.no_grad():
        plain = toy.model(torch.tensor([[*ids, toy.mask_id]])).logits[0, -1]
        without = toy.model(torch.tensor([[toy.mask_id] * (len(ids) + 1)])).logits[0, -1]
    logits = without + (guidance + 1) * (plain - without)
    logits[toy.mask_id] = -torch.inf
    assert answer.canvas == [int(logits.argmax())]
    assert answer.steps[0][0].confidence == pytest.approx(
        float(torch.softmax(without + (guidance + 1) * (plain - without), 0)[answer.canvas[0]]),
        rel=1e-4,
    )


def test_confidences_of_a_bf16_model_are_float32(toy):
    """Rounded to bf16 many of them would be equal and their order an accident."""
    half = dataclasses.replace(toy, model=copy.deepcopy(toy.model).bfloat16())
    answers = Sampler(half, config(steps=1)).generate(PROMPTS)
    confidences = [c.confidence for a in answers for step in a.steps for c in step]
    rounded = torch.tensor(confidences).bfloat16().tolist()
    assert len(set(confidences)) > 0.95 * len(confidences)
    assert len(set(rounded)) < 0.8 * len(rounded)


@pytest.mark.parametrize("remasking", list(STRATEGIES))
@pytest.mark.parametrize("intervention", [None, ShiftIntervention(0.3, seed=0)])
def test_a_step_waits_for_the_device_once(toy, monkeypatch, remasking, intervention):
    """What reads values on the host would stop a GPU; the canvas is brought over once a step."""
    waiting = ("nonzero", "_local_scalar_dense", "masked_select", "is_nonzero", "equal", "unique")
    seen: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            name = function.__name__.split(".")[0]
            if name in waiting:
                seen.append(name)
            if name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1]):
                seen.append("index by flags")
            return function(*args, **(kwargs or {}))

    step, calls = Decoding._step, []

    def watched(decoding, *arguments):
        calls.append(0)
        with Watch():
            return step(decoding, *arguments)

    monkeypatch.setattr(Decoding, "_step", watched)
    cfg = config(remasking=remasking, bound=BOUNDS.get(remasking), temperature=1.0)
    Sampler(toy, cfg, intervention).generate(PROMPTS)
    assert calls
    # The one allowed reads draws that are on the CPU anyway.
    allowed = len(calls) if intervention is not None else 0
    assert [name for name in seen if name != "nonzero"] == []
    assert len(seen) <= allowed


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_with_one_step_a_block_the_caches_change_nothing(toy, cache):
    """The first pass of a block is over the whole sequence."""
    settings_ = {"block_length": 6, "steps": 4, "guidance": 0.5}
    exact = Sampler(toy, config(**settings_)).generate(PROMPTS)
    cached = Sampler(toy, config(**settings_, cache=cache)).generate(PROMPTS)
    assert [a.canvas for a in cached] == [a.canvas for a in exact]


@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_cached_passes_run_from_the_block_s_start_or_over_the_block_alone(toy, monkeypatch, cache):
    widths = []
    evaluate = Predictor._evaluate

    def watched(predictor, inputs, bias, **kept):
        widths.append(inputs.shape[1])
        return evaluate(predictor, inputs, bias, **kept)

    monkeypatch.setattr(Predictor, "_evaluate", watched)
    Sampler(toy, config(block_length=8, steps=6, cache=cache)).generate(PROMPTS)
    whole = widths[0]
    if cache == "dual":
        assert widths == [whole, 8] * 3
    else:
        assert widths == [whole, 24, whole, 16, whole, 8]


def test_a_cache_is_only_for_the_native_model(toy, monkeypatch):
    monkeypatch.setattr(type(toy.model.config), "model_type", "dream")
    with pytest.raises(ConfigError, match=r"cache=dual needs a native LLaDA, got .*'dream'"):
        Sampler(toy, config(cache="dual"))


@pytest.mark.system
@settings(max_examples=10, deadline=None)
@given(
    refill=st.integers(1, 4),
    block=st.sampled_from([None, 6]),
    seed=st.integers(0, 500),
    early_stop=st.booleans(),
    kind=st.sampled_from([None, "shift", "drop", "swap"]),
    delay_slack=st.booleans(),
)
def test_refill_reopens_the_least_certain_slack_and_its_neighbours_alone(
    slacking, refill, block, seed, early_stop, kind, delay_slack
):
    settings_ = {"temperature": 1.0, "seed": seed, "block_length": block, "early_stop": early_stop}
    settings_["delay_slack"] = delay_slack
    before = Sampler(slacking, config(**settings_)).generate(PROMPTS)
    after = Sampler(slacking, config(**settings_, refill=refill)).generate(PROMPTS)
    for old, new in zip(before, after, strict=True):
        end = next((i for i, t in enumerate(old.canvas) if t in slacking.eos_ids), 24)
        sure = {c.position: c.confidence for step in old.steps for c in step}
        slack = [i for i in range(end) if old.canvas[i] == slacking.slack_id]
        assert all(0 < sure[i] < 1 for i in slack)  # as probable as the model says, delayed or not
        chosen = sorted(slack, key=lambda i, sure=sure: (sure[i], i))[:refill]
        opened = {i + d for i in chosen for d in (-1, 0, 1)} & set(range(end))
        rewritten = [c.position for step in new.steps[len(old.steps) :] for c in step]
        assert sorted(rewritten) == sorted(opened)
        changed = {i for i in range(24) if old.canvas[i] != new.canvas[i]}
        assert changed <= opened
        assert new.num_forwards - old.num_forwards == min(refill, len(opened)) or early_stop
        assert slacking.mask_id not in new.canvas
    intervention = None if kind is None else ShiftIntervention(0.5, kind=kind, seed=seed)
    altered = decode_as_alone(slacking, config(**settings_, refill=refill), PROMPTS, intervention)
    assert not any(slacking.mask_id in a.canvas for a in altered)


def test_the_refill_test_has_slack_to_reopen(slacking):
    answers = Sampler(slacking, config(temperature=1.0)).generate(PROMPTS * 4)
    assert sum(slacking.slack_id in a.canvas for a in answers) > 6


def test_a_negative_refill_is_named():
    with pytest.raises(ConfigError, match="refill: expected at least 0, got -1"):
        config(refill=-1)


def test_steps_taken_one_by_one_keep_no_gradients_and_leave_the_caller_s_mode_alone(toy):
    decoding = Decoding(toy, config(temperature=1.0, refill=2), None, [[5, 6]], [0])
    for _ in decoding.steps():
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert not decoding._certainty.requires_grad
