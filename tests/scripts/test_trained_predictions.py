"""Networks beside ideal predictions: the losses by training's own functions, the language by the demo's parser."""

import csv
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slackdlm.objectives.masked_ce import position_ce
from slackdlm.objectives.slack_ctc import slack_ctc_loss
from slackdlm.study.toy_judge import sentence_log_likelihood

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def trained() -> Any:
    return import_module("trained_predictions")


@pytest.fixture(scope="module")
def language(trained: Any) -> dict[tuple[int, ...], float]:
    ids = trained.tokenizer().convert_tokens_to_ids
    return {tuple(ids("a g".split())): 0.6, tuple(ids("b c g".split())): 0.4}


class Network:
    """Fixed logits, whatever it is shown."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    @property
    def model(self) -> Any:
        return lambda input_ids: self  # as a LoadedModel is called


def network(logits: torch.Tensor) -> Network:
    """Behind a prompt of one token."""
    return Network(torch.cat([torch.zeros_like(logits[:1]), logits])[None])


def tables(trained: Any, language: dict[tuple[int, ...], float]) -> dict[str, Any]:
    ideals = {}
    for arm, ratio in (("ce", 0.0), ("slack_ctc", 1.0)):
        table = trained.canvases(language, slack_ratio=ratio, canvas_length=6)
        predict = (
            trained.marginals
            if arm == "ce"
            else lambda fits: trained.slack_ctc_optimum(fits, num_starts=8).probs
        )
        ideals[arm] = trained.Ideal(table, predict)
    return ideals


def training_loss(trained: Any, ideal: Any, arm: str, logits: torch.Tensor, canvas: Any) -> float:
    """Averaged over the canvases behind a pattern, by the functions that train; padding behind the content by CE."""
    mask, end = trained.token_id(trained.MASK), trained.token_id(trained.END_OF_TEXT)
    slack = trained.token_id("<slack>")
    table = ideal.table
    shown = canvas != mask
    fits = (table.tokens == canvas)[:, shown].all(axis=1)
    # a group's probability is spread over its canvases; the lattice sums over all of them by itself
    total, weight = 0.0, table.weight[fits].sum()
    masked = torch.from_numpy(~shown)
    for group in np.unique(table.group[fits]):
        among = fits & (table.group == group)
        share = table.weight[among].sum() / weight
        rows = torch.from_numpy(table.tokens[among])
        if arm == "ce":
            losses = position_ce(
                logits.expand(len(rows), -1, -1), rows, masked.expand(len(rows), -1)
            )
            total += share * losses.sum(1).mean().item()
            continue
        text = rows[0][(rows[0] != slack) & (rows[0] != end)]
        content = int((rows[0] != end).sum())
        lattice = slack_ctc_loss(
            logits[None],
            torch.from_numpy(canvas)[None],
            text[None],
            torch.tensor([content]),
            torch.tensor([len(text)]),
            mask_id=mask,
            slack_id=slack,
        )
        behind = (torch.arange(6) >= content) & masked
        padding = position_ce(logits[None], torch.full((1, 6), end), behind[None]).sum()
        total += share * (lattice.item() + padding.item())
    return total


@pytest.mark.parametrize("arm", ["ce", "slack_ctc"])
def test_excess_is_training_s_loss_above_that_of_the_ideal_predictions(
    trained: Any, language: dict[tuple[int, ...], float], arm: str
) -> None:
    ideal = tables(trained, language)[arm]
    mask, end = trained.token_id(trained.MASK), trained.token_id(trained.END_OF_TEXT)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, len(trained.tokenizer()), generator=generator, dtype=torch.float64)
    for canvas in (np.full(6, mask), np.array([mask, mask, mask, mask, end, end])):
        best = torch.from_numpy(ideal(canvas))
        expected = training_loss(trained, ideal, arm, logits, canvas)
        expected -= training_loss(trained, ideal, arm, best, canvas)
        found = trained.distance(network(logits), ideal, canvas)
        assert found.excess == pytest.approx(expected, abs=1e-6)
        assert found.num_cells == (canvas == mask).sum()
        assert 0 <= found.basin <= found.excess
        if arm == "ce":
            assert found.basin == pytest.approx(0, abs=1e-6)
        at_best = trained.distance(network(best), ideal, canvas)
        assert at_best.excess == pytest.approx(0, abs=1e-6)
        assert at_best.basin == pytest.approx(0, abs=1e-6)


def test_a_network_at_another_local_optimum_is_in_another_basin(
    trained: Any, language: dict[tuple[int, ...], float]
) -> None:
    """`a g` and `b c g` with slack: from some starts EM ends above the best, and there excess is all basin."""
    ideal = tables(trained, language)["slack_ctc"]
    canvas = np.full(6, trained.token_id(trained.MASK))
    fits = trained.matching(ideal.table, canvas)
    rng = np.random.Generator(np.random.PCG64(0))
    worse = 0
    for _ in range(8):
        start = rng.dirichlet(0.2 * np.ones(len(trained.tokenizer())), size=6) + 1e-9
        local = trained.slack_ctc_optimum(fits, num_starts=1, first_start=start)
        logits = torch.from_numpy(np.log(np.maximum(local.probs, 1e-30)))
        found = trained.distance(network(logits), ideal, canvas)
        assert found.excess == pytest.approx(found.basin, abs=1e-5)
        worse += found.basin > 1e-3
    assert worse


def test_distances_are_nats_a_masked_cell_without_the_empty_canvas(trained: Any) -> None:
    found = trained.distances(
        [
            trained.Distance(9.0, 8.0, 6),
            trained.Distance(1.0, 0.5, 2),
            trained.Distance(3.0, 0.5, 8),
        ]
    )
    assert found == {"excess": 0.4, "basin": 0.1, "excess_empty": 9.0, "basin_empty": 8.0}


def test_patterns_are_the_empty_canvas_and_masked_canvases_of_the_arm(
    trained: Any, language: dict[tuple[int, ...], float]
) -> None:
    table = tables(trained, language)["slack_ctc"].table
    mask = trained.token_id(trained.MASK)
    first, *others = trained.patterns(table, seed=3)
    assert (first == mask).all()
    assert len(others) == trained.NUM_PATTERNS
    shares = [np.mean(canvas == mask) for canvas in others]
    assert min(shares) > 0
    assert 0.4 < np.mean(shares) < 0.75  # a half, patterns without a mask drawn again
    assert (
        np.std(shares) > 0.25
    )  # of the even rate alone 0.29, of the cells at a rate of a half 0.2
    for canvas in others:
        shown = canvas != mask
        assert (table.tokens == canvas)[:, shown].all(axis=1).any()


def test_the_grammar_is_the_demo_s(trained: Any) -> None:
    words = dict(zip("abcdefg", "the blue boat falls likes softly .".split(), strict=True))
    found = trained.language_of("grammar", 5)
    assert len(found) == 12
    assert sum(found.values()) == pytest.approx(1)
    assert {len(text) for text in found} == {4, 5, 6, 7, 8, 9}
    for text in found:
        letters = trained.tokenizer().convert_ids_to_tokens(list(text))
        assert sentence_log_likelihood([words[letter] for letter in letters]) is not None
    many = [trained.grammar(seed) for seed in range(300)]
    spelt = trained.tokenizer().convert_tokens_to_ids
    with_adverb = [sum(p for text, p in one.items() if spelt("f") in text) for one in many]
    assert np.mean(with_adverb) == pytest.approx(0.35, abs=0.05)
    assert np.std(with_adverb) > 0.1


def test_a_language_is_studied_from_training_to_its_rows(
    trained: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained, "NUM_PATTERNS", 3)
    monkeypatch.setattr(trained, "BASE", 1)  # 1 and 2 steps are as many as the 3 from scratch
    monkeypatch.setattr(trained, "FINE_TUNING", 2)
    seen: list[tuple[Any, Any, Any]] = []
    original = trained.train_samples

    def spy(model: Any, *args: Any, **kwargs: Any) -> Any:
        before = [p.detach().clone() for p in model.model.parameters()]
        seen.append((kwargs["objective"], kwargs["training"], before))
        return original(model, *args, **kwargs)

    monkeypatch.setattr(trained, "train_samples", spy)
    short = trained.Training
    trainings = [
        short("ce", 0, 3),
        short("slack_ctc", 0, 3),
        short("ce", 3, 2),
        short("slack_ctc", 3, 2),
    ]
    rows = trained.study("unequal", 2, trainings=trainings, num_texts=50)
    predictors = ["ideal", "3 steps", "3 of CE, then 2"]
    assert list(dict.fromkeys(row["predictor"] for row in rows)) == predictors
    assert len(rows) == len(predictors) * 2 * len(list(trained.ways("unequal")))
    # Arms are matched: the same start, masks and order; a fine-tuned arm starts elsewhere, with other masks.
    for first, second in (seen[:2], seen[2:]):
        assert (first[0].kind, first[0].slack_ratio) == ("ce", (0.0, 0.0))
        assert (second[0].kind, second[0].slack_ratio) == ("slack_ctc", (0.0, 0.5))
        assert first[1] == second[1]
        assert all(torch.equal(a, b) for a, b in zip(first[2], second[2], strict=True))
    assert seen[0][1].seed != seen[2][1].seed
    assert not all(torch.equal(a, b) for a, b in zip(seen[0][2], seen[2][2], strict=True))
    cells = trained.summary(rows)
    assert [row["predictor"] for row in cells[:: len(cells) // 3]] == predictors


def test_leads_are_paired_by_language(trained: Any) -> None:
    way = {"order": "plain", "temperature": 1.0, "steps": 5, "spacing": 1}
    shares = {
        ("ideal", "ce"): [0.5, 0.6],
        ("ideal", "slack_ctc"): [0.7, 0.9],
        ("3000 steps", "ce"): [0.4, 0.6],
        ("3000 steps", "slack_ctc"): [0.5, 0.6],
        ("1000 of CE, then 2000", "ce"): [0.4, 0.4],
        ("1000 of CE, then 2000", "slack_ctc"): [0.8, 0.6],
    }
    rows = [
        {"setting": "unequal", "seed": seed, **way, "predictor": predictor, "arm": arm}
        | {"valid": values[seed], "variation": 0.0}
        for seed in (1, 0)
        for (predictor, arm), values in shares.items()
    ]
    ideal, scratch, tuned = trained.summary(rows)
    assert ideal["lead"] == pytest.approx(0.25)
    assert scratch["lead"] == pytest.approx(0.05)
    assert scratch["lead_minus_ideal"] == pytest.approx(-0.2)
    assert (scratch["lead_minus_ideal_low"], scratch["lead_minus_ideal_high"]) != (None, None)
    assert scratch["valid_slack_ctc_minus_ideal"] == pytest.approx(-0.25)
    assert tuned["lead"] == pytest.approx(0.3)
    assert tuned["lead_minus_scratch"] == pytest.approx(0.25)
    assert {row["num_languages"] for row in (ideal, scratch, tuned)} == {2}


def test_the_shown_figures_are_those_of_the_table_of_trained_networks(trained: Any) -> None:
    page = (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")
    with (ROOT / "benchmarks" / "results" / "trained_predictions.csv").open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if row["order"] == "slack and ends last" and row["temperature"] == "1.0"
        ]
    named = [("unequal", "5", "4", "3000 steps"), ("grammar", "4", "4", "ideal")]
    named += [("grammar", "4", "1", "ideal")]
    keys = ("setting", "steps", "spacing", "predictor")
    found = {tuple(row[key] for key in keys): row for row in rows}
    for cell in named:
        lead, low, high = (
            f"{float(found[cell]['lead' + end]):.3f}" for end in ("", "_low", "_high")
        )
        assert f"{lead} [{low}, {high}]" in page
    assert f"behind CE by {-float(found['unequal', '5', '4', '300 steps']['lead']):.3f}" in page
