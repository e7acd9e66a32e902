from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

pytest.importorskip("lm_eval")

from lm_eval.api.instance import Instance

from slackdlm.errors import ConfigError, DataError
from slackdlm.harness.adapter import HarnessLM
from slackdlm.harness.likelihood import Target, log_likelihood_bounds
from slackdlm.harness.requests import encode_pair
from slackdlm.journal import Journal
from slackdlm.models.loading import new_model
from slackdlm.sampling.sampler import Sampler, SamplerConfig

CONFIG = SamplerConfig(canvas_length=12, steps=6, temperature=1.0, batch_size=4)
CONTEXTS = [f"Question: {'very ' * i}{i} and {i}?\nAnswer:" for i in range(6)]
CHOICES = [" 7", " pens", " Ann has pens", " 1000"]


def generations(contexts, **arguments) -> list[Instance]:
    return [
        Instance("generate_until", {}, (context, {"until": [], **arguments}), 0)
        for context in contexts
    ]


def ratings(contexts, choices=CHOICES) -> list[Instance]:
    return [
        Instance("loglikelihood", {}, (context, choice), i)
        for context in contexts
        for i, choice in enumerate(choices)
    ]


@pytest.fixture
def busy(monkeypatch):
    """Counts the model's evaluations."""
    counted: list[int] = []

    def watch(loaded):
        forward = loaded.model.forward

        def counting(*args, **kwargs):
            counted.append(1)
            return forward(*args, **kwargs)

        monkeypatch.setattr(loaded.model, "forward", counting)
        return counted

    return watch


def test_generations_do_not_depend_on_batch_order_or_limit(speaker):
    together = HarnessLM(speaker, CONFIG).generate_until(generations(CONTEXTS))
    single = HarnessLM(speaker, replace(CONFIG, batch_size=1))
    assert single.generate_until(generations(CONTEXTS[::-1]))[::-1] == together
    assert single.generate_until(generations(CONTEXTS[2:3])) == together[2:3]
    assert len(set(together)) == len(CONTEXTS)
    assert (
        HarnessLM(speaker, replace(CONFIG, seed=1)).generate_until(generations(CONTEXTS))
        != together
    )


def test_repeats_are_draws_of_their_own_and_greedy_ones_are_not(speaker):
    lm = HarnessLM(speaker, CONFIG)
    first, second, other = lm.generate_until(generations([CONTEXTS[0]] * 2 + [CONTEXTS[1]]))
    assert len({first, second, other}) == 3
    assert lm.generate_until(generations([CONTEXTS[0]])) == [first]
    greedy = HarnessLM(speaker, replace(CONFIG, temperature=0.0))
    first, second = greedy.generate_until(generations([CONTEXTS[0]] * 2))
    assert first == second


def test_a_task_s_answers_do_not_depend_on_the_tasks_beside_it(speaker):
    lm = HarnessLM(speaker, CONFIG)
    one, other = (
        [
            Instance("generate_until", {}, (text, {"until": []}), 0, metadata=(task, i, 1))
            for i, text in enumerate(CONTEXTS[:2])
        ]
        for task in ("one", "other")
    )
    assert [request.task_name for request in other] == ["other", "other"]
    alone = lm.generate_until(other)
    *beside, again = lm.generate_until([*one, *other, other[0]])
    assert beside[2:] == alone
    assert again != alone[0], "the same question again in one task is another draw"


def test_answers_are_cut_at_stop_texts_and_lengths(speaker):
    lm = HarnessLM(speaker, CONFIG)
    (whole,) = lm.generate_until(generations(CONTEXTS[:1]))
    assert len(whole) > 4
    stop = whole[3:5]
    (cut,) = lm.generate_until(generations(CONTEXTS[:1], until=[stop]))
    assert cut == whole[: whole.index(stop)]
    (short,) = lm.generate_until(generations(CONTEXTS[:1], max_gen_toks=3))
    assert whole.startswith(short.rstrip("\ufffd"))
    assert len(short) < len(whole)
    asked = generations(CONTEXTS[:1], max_gen_toks=99, top_k=5)
    lm.generate_until(asked)
    assert set(lm.unused) == {
        "temperature=0 (decoded with 1)",
        "max_gen_toks=99 (the canvas has 12 positions)",
        "top_k=5",
    }


def test_likelihoods_are_the_bound_of_each_pair(speaker):
    lm = HarnessLM(speaker, replace(CONFIG, batch_size=3), mc_samples=7)
    found = lm.loglikelihood(ratings(CONTEXTS[:2]))
    turned = HarnessLM(speaker, replace(CONFIG, batch_size=16), mc_samples=7)
    backwards = turned.loglikelihood(ratings(CONTEXTS[:2])[::-1])[::-1]
    assert [value for value, _ in found] == pytest.approx([v for v, _ in backwards], abs=3e-5)
    ids = encode_pair(speaker.tokenizer, CONTEXTS[1], CHOICES[0])
    assert len(ids[1]) <= 2
    (bound,) = log_likelihood_bounds(speaker, [Target(*ids, 0)], num_samples=7, batch_size=1)
    assert found[4][0] == pytest.approx(bound, abs=2e-5)
    assert {type(greedy) for _, greedy in found} == {bool}
    assert len({round(value, 3) for value, _ in found}) == len(found)


def test_whole_texts_are_rated_in_parts_that_fit(speaker):
    lm = HarnessLM(speaker, CONFIG, mc_samples=2)
    short = Instance("loglikelihood_rolling", {}, ("Ann has 7 pens.",), 0)
    (value,) = lm.loglikelihood_rolling([short])
    assert (
        lm.loglikelihood([Instance("loglikelihood", {}, ("", "Ann has 7 pens."), 0)])[0][0] == value
    )
    long = "Ann has 7 pens. " * 200
    ids = speaker.tokenizer(long)["input_ids"]
    assert len(ids) > 2 * speaker.max_length
    (value,) = lm.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (long,), 0)])
    parts = [(0, 0, 512)] + [
        (max(min(start + 256, len(ids)) - 512, 0), start, min(start + 256, len(ids)))
        for start in range(512, len(ids), 256)
    ]
    rated = [lm._rated(ids[first:start], ids[start:end]) for first, start, end in parts]
    assert all(len(part.prompt_ids) + len(part.target_ids) <= 512 for part in rated)
    assert sum(len(part.target_ids) for part in rated) == len(ids)
    targets = [Target(part.prompt_ids, part.target_ids, part.seed) for part in rated]
    bounds = log_likelihood_bounds(speaker, targets, num_samples=2, batch_size=4)
    assert value == pytest.approx(sum(bounds), rel=1e-6)


def test_what_is_journalled_is_not_computed_again(speaker, tmp_path, busy):
    counted = busy(speaker)
    journal = Journal(tmp_path / "j.journal")
    lm = HarnessLM(speaker, CONFIG, mc_samples=3, journal=journal)
    texts, values = (
        lm.generate_until(generations(CONTEXTS)),
        lm.loglikelihood(ratings(CONTEXTS[:2])),
    )
    assert counted
    counted.clear()
    # Neither batch size nor stop texts are part of what was computed.
    again = HarnessLM(speaker, replace(CONFIG, batch_size=1), mc_samples=3, journal=journal)
    assert again.generate_until(generations(CONTEXTS)) == texts
    assert again.generate_until(generations(CONTEXTS, until=["a"])) == [
        t.split("a")[0] for t in texts
    ]
    assert again.loglikelihood(ratings(CONTEXTS[:2])) == values
    assert not counted
    for other in (
        HarnessLM(speaker, replace(CONFIG, seed=1), mc_samples=3, journal=journal),
        HarnessLM(speaker, replace(CONFIG, guidance=0.5), mc_samples=3, journal=journal),
    ):
        counted.clear()
        other.generate_until(generations(CONTEXTS[:1]))
        assert counted
        counted.clear()
        other.loglikelihood(ratings(CONTEXTS[:1], CHOICES[:1]))
        assert counted
    counted.clear()
    more = HarnessLM(speaker, CONFIG, mc_samples=4, journal=journal)
    more.loglikelihood(ratings(CONTEXTS[:1], CHOICES[:1]))
    assert counted


def test_another_models_results_are_not_taken(speaker, tmp_path):
    other = new_model(speaker.model.config, speaker.tokenizer, generator_seed=6)
    wrapped = new_model(speaker.model.config, speaker.tokenizer, generator_seed=5)
    torch.manual_seed(0)
    adapter = get_peft_model(
        wrapped.model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted = replace(wrapped, model=adapter)
    texts, values = [], []
    journal = Journal(tmp_path / "j.journal")
    for loaded in (speaker, other, adapted):
        # The same name on purpose: content decides.
        lm = HarnessLM(replace(loaded, name="same"), CONFIG, journal=journal)
        texts.append(lm.generate_until(generations(CONTEXTS[:2]))[0])
        values.append(lm.loglikelihood(ratings(CONTEXTS[:1], CHOICES[:1]))[0][0])
    fresh = [
        HarnessLM(loaded, CONFIG).generate_until(generations(CONTEXTS[:1]))[0]
        for loaded in (speaker, other, adapted)
    ]
    assert texts == fresh
    assert len(set(values)) == 3


def test_an_interrupted_run_goes_on_where_it_was(speaker, tmp_path, busy):
    config = replace(CONFIG, batch_size=2)
    expected = HarnessLM(speaker, config).generate_until(generations(CONTEXTS))
    counted = busy(speaker)

    def interrupt(kind, done, total):
        if done == 2:
            raise KeyboardInterrupt

    journal = Journal(tmp_path / "j.journal")
    with pytest.raises(KeyboardInterrupt):
        HarnessLM(speaker, config, journal=journal, on_progress=interrupt).generate_until(
            generations(CONTEXTS)
        )
    before = len(counted)
    seen: list[tuple[str, int, int]] = []
    lm = HarnessLM(speaker, config, journal=journal, on_progress=lambda *step: seen.append(step))
    assert lm.generate_until(generations(CONTEXTS)) == expected
    assert seen == [("generations", n, 6) for n in (2, 4, 6)]
    assert len(counted) == 3 * before


def test_bad_settings_and_prompts_are_named(speaker):
    with pytest.raises(ConfigError, match="mc_samples must be at least 1, got 0"):
        HarnessLM(speaker, CONFIG, mc_samples=0)
    lm = HarnessLM(speaker, CONFIG)
    with pytest.raises(
        DataError,
        match=r"1 of 2 prompts are longer than the 500 tokens that a canvas of 12 leaves .*num-fewshot",
    ):
        lm.generate_until(generations(["short", "7 " * 400]))
    with pytest.raises(DataError, match="longer than the model's 512 tokens"):
        lm.loglikelihood(ratings(["7 " * 400]))


def test_generation_is_our_sampler(speaker):
    lm = HarnessLM(speaker, replace(CONFIG, temperature=0.0))
    chat = lm.apply_chat_template([{"role": "user", "content": "7 and 5?"}])
    (text,) = lm.generate_until(generations([chat]))
    (answer,) = Sampler(speaker, replace(CONFIG, temperature=0.0)).generate(["7 and 5?"])
    assert text == answer.text
    assert speaker.tokenizer.chat_template == lm.chat_template()
    assert len(lm.tokenizer_name) > 12
