"""Predictors that are what the objectives ask for: against enumeration written out anew, the losses and the sampler."""

import csv
import math
from collections import defaultdict
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slackdlm.canvas import draw_num_slack
from slackdlm.objectives.masked_ce import position_ce
from slackdlm.objectives.slack_ctc import slack_ctc_loss

ROOT = Path(__file__).parents[2]
LENGTH = 6
TEXTS = {"a g": 0.5, "b c g": 0.3, "a h": 0.2}


@pytest.fixture(scope="module")
def ideal() -> Any:
    return import_module("ideal_predictions")


@pytest.fixture(scope="module")
def language(ideal: Any) -> dict[tuple[int, ...], float]:
    def ids(text: str) -> tuple[int, ...]:
        return tuple(ideal.tokenizer().encode(text, add_special_tokens=False))

    return {ids(text): probability for text, probability in TEXTS.items()}


def written(ideal: Any, text: str) -> np.ndarray:
    """A canvas from words, ``_`` for slack, ``.`` for end-of-text, ``?`` for a mask."""
    special = {"_": ideal.SLACK, ".": ideal.END_OF_TEXT, "?": ideal.MASK}
    tokens = [special.get(word, word) for word in text.split()]
    return np.array(ideal.tokenizer().convert_tokens_to_ids(tokens))


def all_canvases(slack_ratio: float) -> dict[tuple[str, ...], tuple[float, tuple[str, int]]]:
    """Probability, text and slack of every canvas: for the ratios 0 and 1 of this language, by hand."""
    budgets = {
        0.0: {2: {0: 1.0}, 3: {0: 1.0}},
        # of [0, 2]: 0 to 0.5, to 1.5, to 2; of [0, 3]: to 0.5, 1.5, 2.5, 3
        1.0: {2: {0: 1 / 4, 1: 1 / 2, 2: 1 / 4}, 3: {0: 1 / 6, 1: 1 / 3, 2: 1 / 3, 3: 1 / 6}},
    }[slack_ratio]
    found: dict[tuple[str, ...], tuple[float, tuple[str, int]]] = {}
    for text, probability in TEXTS.items():
        words = text.split()
        for num_slack, share in budgets[len(words)].items():
            content = len(words) + num_slack
            for places in combinations(range(content), len(words)):
                row = ["_"] * content + ["."] * (LENGTH - content)
                for place, word in zip(places, words, strict=True):
                    row[place] = word
                weight = probability * share / math.comb(content, num_slack)
                found[tuple(row)] = weight, (text, num_slack)
    return found


def nearest(
    slack_ratio: float, pattern: str
) -> dict[tuple[str, ...], tuple[float, tuple[str, int]]]:
    """The canvases a pattern may have come from, and their probabilities given that."""
    rows = all_canvases(slack_ratio)
    seen = [(i, word) for i, word in enumerate(pattern.split()) if word != "?"]
    wrong = {row: sum(row[i] != word for i, word in seen) for row in rows}
    fits = [row for row in rows if wrong[row] == min(wrong.values())]
    total = sum(rows[row][0] for row in fits)
    return {row: (rows[row][0] / total, rows[row][1]) for row in fits}


PATTERNS = [
    "? ? ? ? ? ?",
    "? ? g ? ? ?",
    "_ ? ? ? . ?",
    "a ? ? ? ? .",
    "g ? ? ? ? ?",
    "? c g g ? ?",
]


@pytest.mark.parametrize("slack_ratio", [0.0, 1.0])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_ce_asks_for_the_marginals_of_all_canvases_that_fit(
    ideal: Any, language: dict[tuple[int, ...], float], slack_ratio: float, pattern: str
) -> None:
    table = ideal.canvases(language, slack_ratio=slack_ratio, canvas_length=LENGTH)
    canvas = written(ideal, pattern)
    found = ideal.marginals(ideal.matching(table, canvas))
    masked = [i for i, word in enumerate(pattern.split()) if word == "?"]
    expected = np.zeros_like(found)
    for row, (weight, _) in nearest(slack_ratio, pattern).items():
        for cell, token in enumerate(written(ideal, " ".join(row[i] for i in masked))):
            expected[cell, token] += weight
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14)


def test_slack_budgets_are_those_that_training_draws(ideal: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [
        draw_num_slack(7, slack_ratio=(0.0, 0.5), room=9, generator=generator) for _ in range(4000)
    ]
    shares = ideal.slack_budgets(7, slack_ratio=0.5)
    assert sum(shares.values()) == pytest.approx(1)
    assert sorted(shares) == sorted(set(drawn))
    for num_slack, share in shares.items():
        assert drawn.count(num_slack) / len(drawn) == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("setting", ["unequal", "equal"])
def test_the_settings_differ_in_the_lengths_of_openings_alone(ideal: Any, setting: str) -> None:
    language = ideal.sentences(setting, 0)
    assert len(language) == 27
    assert sum(language.values()) == pytest.approx(1)
    assert list(language.values()) == list(ideal.sentences("equal", 0).values())
    assert {len(text) for text in language} == ({5, 6, 7} if setting == "unequal" else {6})
    table = ideal.canvases(
        language, slack_ratio=ideal.SLACK_RATIO, canvas_length=ideal.CANVAS_LENGTH
    )
    assert table.weight.sum() == pytest.approx(1)
    assert len({row.tobytes() for row in table.tokens}) == len(table.tokens)


def groups(ideal: Any, pattern: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Weight and batch of each sentence and amount of slack behind a pattern, ratio 1."""
    weights: dict[tuple[str, int], float] = defaultdict(float)
    for weight, group in nearest(1.0, pattern).values():
        weights[group] += weight
    rows: dict[str, list[Any]] = defaultdict(list)
    for text, num_slack in weights:
        target = written(ideal, text)
        rows["targets"].append(np.pad(target, (0, 3 - len(target))))
        rows["target_lengths"].append(len(target))
        rows["canvas_lengths"].append(len(target) + num_slack)
        rows["canvas"].append(written(ideal, pattern))
    return list(weights.values()), {name: torch.tensor(np.array(x)) for name, x in rows.items()}


@pytest.mark.parametrize("pattern", PATTERNS[:4])
def test_the_optimum_s_loss_is_that_of_training_and_its_gradient_zero(
    ideal: Any, language: dict[tuple[int, ...], float], pattern: str
) -> None:
    table = ideal.canvases(language, slack_ratio=1.0, canvas_length=LENGTH)
    canvas = written(ideal, pattern)
    found = ideal.slack_ctc_optimum(ideal.matching(table, canvas))
    logits = torch.zeros(LENGTH, len(ideal.tokenizer()), dtype=torch.float64)
    masked = torch.from_numpy(canvas == ideal.token_id(ideal.MASK))
    logits[masked] = torch.from_numpy(np.log(np.maximum(found.probs, 1e-30)))
    logits.requires_grad_()
    weights, batch = groups(ideal, pattern)

    def loss(logits: torch.Tensor) -> torch.Tensor:
        scores = logits.expand(len(weights), -1, -1)
        lattice = slack_ctc_loss(
            scores,
            **batch,
            mask_id=ideal.token_id(ideal.MASK),
            slack_id=ideal.token_id(ideal.SLACK),
        )
        behind = torch.arange(LENGTH) >= batch["canvas_lengths"][:, None]
        ends = torch.full_like(batch["canvas"], ideal.token_id(ideal.END_OF_TEXT))
        padding = position_ce(scores, ends, behind & masked).sum(1)
        return torch.tensor(weights, dtype=torch.float64) @ (lattice + padding)

    value = loss(logits)
    assert value.item() == pytest.approx(found.loss, abs=1e-7)
    (gradient,) = torch.autograd.grad(value, logits)
    assert gradient.abs().max() < 1e-7
    assert found.gradient < 1e-7
    ce = torch.zeros_like(logits)
    ce[masked] = torch.from_numpy(
        np.log(np.maximum(ideal.marginals(ideal.matching(table, canvas)), 1e-30))
    )
    assert value <= loss(ce) + 1e-12
    rng = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.1, 1.0):
        near = logits + scale * torch.randn(logits.shape, generator=rng, dtype=torch.float64)
        assert value <= loss(near) + 1e-12


def test_where_one_text_is_left_slack_ctc_is_certain_and_ce_is_not(
    ideal: Any, language: dict[tuple[int, ...], float]
) -> None:
    """Two words on four cells have six places; slack-CTC's optimum is any one of them."""
    table = ideal.canvases(language, slack_ratio=1.0, canvas_length=LENGTH)
    fits = ideal.matching(table, written(ideal, "a ? ? h . ."))
    ce, slack_ctc = ideal.marginals(fits), ideal.slack_ctc_optimum(fits)
    assert slack_ctc.loss == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(slack_ctc.probs.max(axis=1), 1, atol=1e-7)
    fits = ideal.matching(table, written(ideal, "? ? ? h . ."))
    ce, slack_ctc = ideal.marginals(fits), ideal.slack_ctc_optimum(fits)
    assert slack_ctc.loss == pytest.approx(0, abs=1e-7)
    np.testing.assert_allclose(slack_ctc.probs.max(axis=1), 1, atol=1e-7)
    np.testing.assert_allclose(ce.max(axis=1), 2 / 3)


def steps_written_out(ideal: Any, predict: Any, way: Any) -> tuple[int, ...]:
    """The greedy text, by the definitions of the schedule, the confidence, the delays and the spacing."""
    mask, slack = ideal.token_id(ideal.MASK), ideal.token_id(ideal.SLACK)
    end = ideal.token_id(ideal.END_OF_TEXT)
    delayed = {"plain": [], "slack last": [slack], "slack and ends last": [slack, end]}[way.order]
    canvas = np.full(ideal.CANVAS_LENGTH, mask)
    for step in range(way.steps):
        probs = np.exp(predict(canvas))
        free = [i for i in range(len(canvas)) if canvas[i] == mask]
        proposed = {i: int(probs[i].argmax()) for i in free}
        sure: dict[int, float] = {}
        for i in free:
            share = 1 - probs[i, delayed].sum()
            sure[i] = -1.0 if proposed[i] in delayed else probs[i].max() / share
        taken: list[int] = []
        for _ in range(math.ceil(len(free) / (way.steps - step))):
            left = [i for i in free if i not in taken]
            far = [i for i in left if all(abs(i - j) >= way.spacing for j in taken)]
            taken.append(max(far or left, key=lambda i: (round(sure[i], 6), -i)))
        for i in taken:
            canvas[i] = proposed[i]
    text = [*canvas.tolist(), end]
    return tuple(token for token in text[: text.index(end)] if token != slack)


def test_the_sampler_decodes_what_the_steps_written_out_decode(ideal: Any) -> None:
    """A language in which order and spacing change the texts."""
    table = ideal.canvases(
        ideal.sentences("unequal", 0), slack_ratio=0.5, canvas_length=ideal.CANVAS_LENGTH
    )
    predict = ideal.Ideal(table, lambda fits: ideal.slack_ctc_optimum(fits, num_starts=1).probs)
    model = ideal.loaded_model(predict, canvas_length=ideal.CANVAS_LENGTH)
    texts: dict[Any, tuple[int, ...]] = {}
    for way in ideal.ways():
        if way.temperature == 0:
            texts[way] = steps_written_out(ideal, predict, way)
            assert ideal.decode(model, way) == [texts[way]], way
    for order in ideal.ORDERS:
        spaced = [way for way in texts if way.order == order and way.spacing > 1]
        assert any(texts[way] != texts[way._replace(spacing=1)] for way in spaced)
        others = [way for way in texts if way.order == order != "plain"]
        assert not others or any(texts[w] != texts[w._replace(order="plain")] for w in others)


def test_one_cell_at_a_time_ce_writes_sentences_alone(
    ideal: Any, language: dict[tuple[int, ...], float]
) -> None:
    """Not as often as they are likely: the surest of the proposed tokens is written."""
    for slack_ratio in (0.0, 1.0):
        table = ideal.canvases(language, slack_ratio=slack_ratio, canvas_length=LENGTH)
        model = ideal.loaded_model(ideal.Ideal(table, ideal.marginals), canvas_length=LENGTH)
        way = ideal.Way("plain", 1.0, LENGTH, 1)
        assert set(ideal.decode(model, way, canvas_length=LENGTH)) <= set(language)


def test_total_variation_by_hand(ideal: Any) -> None:
    texts = [(1,), (1,), (2,), (9,)]
    assert ideal.total_variation(texts, {(1,): 0.5, (2,): 0.1, (3,): 0.4}) == pytest.approx(0.4)


def test_the_shown_figures_are_those_of_the_committed_table(ideal: Any) -> None:
    with (ROOT / "benchmarks" / "results" / "ideal_predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(list(ideal.ways()))
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    keys = ("order", "temperature", "steps")
    for row in rows:
        if tuple(row[key] for key in keys) == ("slack and ends last", "1.0", "5"):
            difference, low, high = (
                f"{float(row['valid_slack_ctc_minus_ce' + end]):.3f}"
                for end in ("", "_low", "_high")
            )
            if row["setting"] == "unequal":
                assert f"{difference} [{low}, {high}]" in page
            if row["setting"] == "equal":
                assert (difference, low, high) == ("0.000", "0.000", "0.000")
