import copy
import dataclasses

import pytest
import torch
from decoded_alone import decode_as_alone
from hypothesis import given, settings
from hypothesis import strategies as st

from slackdlm.errors import ConfigError, DataError
from slackdlm.models.chat import encode_prompt
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig, schedule
from slackdlm.sampling.strategies import STRATEGIES

PROMPTS = [
    "tell twice cat",
    "tell thrice red boat softly often cat",
    "tell twice",
    "tell twice king",
]


def config(**changes) -> SamplerConfig:
    return SamplerConfig(**{"canvas_length": 24, "steps": 8, "trace": True} | changes)


def llada_reference(toy, prompt: str, cfg: SamplerConfig) -> list[int]:
    """LLaDA's published loop, restated for one row: full logits, explicit schedule, no batching."""
    ids = encode_prompt(toy.tokenizer, [{"role": "user", "content": prompt}])
    x = torch.tensor([ids + [toy.mask_id] * cfg.canvas_length])
    start = len(ids)
    block = cfg.block_length or cfg.canvas_length
    steps = cfg.steps // (cfg.canvas_length // block)
    for b in range(cfg.canvas_length // block):
        masked_at_start = block
        transfers = [masked_at_start // steps + (i < masked_at_start % steps) for i in range(steps)]
        for count in transfers:
            with torch.no_grad():
                logits = toy.model(x).logits.clone()
            probs = torch.softmax(logits, dim=-1)
            logits[..., toy.mask_id] = -torch.inf
            best = logits.argmax(-1)
            confidence = probs.gather(-1, best[..., None])[..., 0]
            confidence[x != toy.mask_id] = -torch.inf
            confidence[:, start + (b + 1) * block :] = -torch.inf
            chosen = confidence[0].topk(count).indices
            x[0, chosen] = best[0, chosen]
    return x[0, start:].tolist()


@pytest.mark.parametrize(("steps", "block"), [(8, None), (24, None), (5, None), (6, 8), (12, 12)])
def test_greedy_decoding_equals_llada_s_loop(toy, steps, block):
    cfg = config(steps=steps, block_length=block)
    for prompt, answer in zip(PROMPTS, Sampler(toy, cfg).generate(PROMPTS), strict=True):
        assert answer.canvas == llada_reference(toy, prompt, cfg)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (None, {}),
        (None, {"temperature": 1.0, "remasking": "random"}),
        ("shift", {"temperature": 1.0}),
        ("shift", {"remasking": "random"}),
        ("shift", {"block_length": 12}),
        ("drop", {"block_length": 12}),
        ("swap", {"remasking": "threshold", "steps": None, "bound": 0.05, "temperature": 1.0}),
        (None, {"cache": "prefix", "block_length": 8, "early_stop": True, "temperature": 1.0}),
        (None, {"cache": "dual", "block_length": 8, "early_stop": True, "temperature": 1.0}),
        (None, {"cache": "dual", "block_length": 8, "steps": None, "remasking": "threshold", "bound": 0.05}),
    ],
)  # fmt: skip
def test_a_batch_of_mixed_prompts_equals_its_rows_alone(toy, kind, changes):
    intervention = None if kind is None else ShiftIntervention(0.3, kind=kind, seed=5)
    decode_as_alone(toy, config(**{"batch_size": 6} | changes), PROMPTS + PROMPTS[:2], intervention)


@settings(max_examples=40, deadline=None)
@given(
    length=st.integers(1, 20),
    block=st.integers(1, 20),
    extra=st.integers(0, 8),
    kind=st.sampled_from([None, "shift", "substitute", "drop", "swap"]),
    when=st.sampled_from(["always", "early", "late"]),
    rate=st.sampled_from([0.0, 0.2, 0.9]),
    temperature=st.sampled_from([0.0, 1.0]),
    remasking=st.sampled_from(list(STRATEGIES)),
    cache=st.sampled_from(["none", "prefix", "dual"]),
)
def test_no_mask_is_committed_or_left_over_and_nothing_overwritten(
    toy, length, block, extra, kind, when, rate, temperature, remasking, cache
):
    block = min(block, length)
    bound = {"threshold": 0.05, "entropy_bound": 4.0}.get(remasking)
    cfg = config(
        canvas_length=length,
        block_length=block,
        steps=None if bound else -(-length // block) + extra,
        temperature=temperature,
        remasking=remasking,
        bound=bound,
        cache=cache,
    )
    intervention = None
    if kind is not None:
        intervention = ShiftIntervention(rate, kind=kind, when=when, seed=1)
    for answer in Sampler(toy, cfg, intervention).generate(PROMPTS[:2]):
        assert toy.mask_id not in answer.canvas
        assert len(answer.canvas) == length
        assert sum(len(step) for step in answer.steps) == length
        written = [commit.position for step in answer.steps for commit in step]
        assert sorted(written) == list(range(length)), (
            "each cell is written once, never overwritten"
        )
        for commit in (commit for step in answer.steps for commit in step):
            assert 0 <= commit.position - commit.displacement < length
            assert abs(commit.displacement) <= 1
            assert commit.position // block == (commit.position - commit.displacement) // block


def test_the_most_probable_token_is_never_the_mask(toy):
    """A head that always prefers the mask still gives a full canvas of other tokens."""
    biased = dataclasses.replace(toy, model=copy.deepcopy(toy.model))
    head = biased.model.get_output_embeddings()
    with torch.no_grad():
        head.weight[toy.mask_id] = 10 * head.weight.abs().max() * torch.sign(head.weight.sum(0))
    answer = Sampler(biased, config()).generate(["tell twice cat"])[0]
    assert toy.mask_id not in answer.canvas


def test_zero_rate_is_identical_to_no_intervention(toy):
    for temperature in (0.0, 1.0):
        cfg = config(temperature=temperature)
        plain = Sampler(toy, cfg).generate(PROMPTS)
        zero = Sampler(toy, cfg, ShiftIntervention(0.0, seed=9)).generate(PROMPTS)
        assert plain == zero


def test_the_seed_decides_the_sample_and_greedy_has_none(toy):
    sampled = [Sampler(toy, config(temperature=1.0, seed=s)).generate(PROMPTS) for s in (0, 0, 1)]
    assert sampled[0] == sampled[1]
    assert sampled[0] != sampled[2]
    greedy = [Sampler(toy, config(seed=s)).generate(PROMPTS) for s in (0, 1)]
    assert greedy[0] == greedy[1]


def test_temperature_one_samples_the_model_s_distribution(toy):
    """One-cell canvases: frequencies over many rows match the softmax with the mask left out."""
    cfg = config(canvas_length=1, steps=1, temperature=1.0, batch_size=500)
    answers = Sampler(toy, cfg).generate(["tell twice cat"] * 1500)
    counts = torch.bincount(
        torch.tensor([a.canvas[0] for a in answers]), minlength=toy.model.config.vocab_size
    )
    ids = encode_prompt(toy.tokenizer, [{"role": "user", "content": "tell twice cat"}])
    with torch.no_grad():
        logits = toy.model(torch.tensor([[*ids, toy.mask_id]])).logits[0, -1].double()
    logits[toy.mask_id] = -torch.inf
    expected = 1500 * torch.softmax(logits, 0)
    assert counts[toy.mask_id] == 0
    keep = expected > 5
    chi_square = float(((counts - expected)[keep] ** 2 / expected[keep]).sum())
    degrees = int(keep.sum())
    assert chi_square < degrees + 5 * (2 * degrees) ** 0.5


def test_the_response_is_cut_at_end_of_text_and_collapsed(toy, monkeypatch):
    end, pad = toy.eos_ids[0], toy.pad_id
    cat = toy.tokenizer.convert_tokens_to_ids("cat")
    canvas = [cat, toy.slack_id, cat, end, cat, toy.slack_id, pad, pad]

    def commit_all(decoding, block):
        decoding.canvas[:] = torch.tensor(canvas)
        decoding._synchronise()
        yield

    monkeypatch.setattr("slackdlm.sampling.decoding.Decoding._steps_of", commit_all)
    answer = Sampler(toy, config(canvas_length=8)).generate(["tell twice"])[0]
    assert answer.tokens == [cat, cat]
    assert answer.text == "cat cat"
    assert answer.canvas == canvas
    graves = Sampler(toy, config(canvas_length=8, collapse="graves")).generate(["tell twice"])[0]
    assert graves.tokens == [cat, cat], "slack between them keeps the repeat"


@given(length=st.integers(1, 64), block=st.integers(1, 64), steps=st.integers(1, 80))
def test_schedule_covers_the_canvas_with_every_step(length, block, steps):
    block = min(block, length)
    if steps < -(-length // block):
        with pytest.raises(ConfigError, match="at least as many steps"):
            config(canvas_length=length, block_length=block, steps=steps)
        return
    blocks = schedule(config(canvas_length=length, block_length=block, steps=steps))
    assert [b[0] for b in blocks] == list(range(0, length, block))
    assert [b[1] for b in blocks][-1] == length
    assert sum(b[2] for b in blocks) == steps
    assert min(b[2] for b in blocks) >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"canvas_length": 0}, "canvas_length: expected at least 1"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"temperature": -0.1}, "temperature: expected at least 0"),
        ({"remasking": "best"}, "remasking: expected one of low_confidence, .* got 'best'"),
        ({"guidance": -1.0}, "guidance: expected at least 0, got -1.0"),
        ({"cache": "triple"}, "cache: expected one of none, prefix, dual, got 'triple'"),
        ({"bound": 0.9}, "low_confidence has no bound, got 0.9"),
        ({"remasking": "threshold", "bound": 0.9}, "as it needs, got steps=8; leave steps out"),
        ({"remasking": "threshold", "steps": None}, r"needs a bound \(a confidence in \(0, 1\]\)"),
        ({"remasking": "threshold", "steps": None, "bound": 1.5}, "needs a bound .* got 1.5"),
        (
            {"remasking": "entropy_bound", "steps": None, "bound": 0.0},
            "bound: expected a number above 0, got 0.0",
        ),
        ({"block_length": 25}, r"block_length: expected at most canvas_length=24, got 25"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        config(**changes)


def test_row_ids_must_match_the_prompts(toy):
    with pytest.raises(DataError, match="4 prompts but 1 row ids"):
        Sampler(toy, config()).generate(PROMPTS, row_ids=[0])


def test_training_mode_is_given_back(toy):
    toy.model.train()
    Sampler(toy, config()).generate(PROMPTS[:1])
    assert toy.model.training
    toy.model.eval()


def test_a_prompt_that_does_not_fit_is_named_before_anything_is_decoded(toy):
    # Prompts of 12 and 15 tokens; the toy model takes 128.
    sampler = Sampler(toy, config(canvas_length=116, steps=116))
    with pytest.raises(
        DataError, match=r"1 of 2 prompts are longer than the 12 tokens .* prompt 1 with 15"
    ):
        sampler.generate(["tell twice cat king", "tell twice cat king dog boat lamp"])
