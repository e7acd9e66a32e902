"""From judgments to figures, on judgments written by hand."""

import numpy as np
import pytest

from slackdlm.sampling.intervention import Dose
from slackdlm.study.demo_figures import quality_rows, win_rate_rows
from slackdlm.study.demo_scores import Cell, Scored, Scores, distinct_bigrams

DOSE = {"asked": 1, "displaced": 1, "impossible": 0, "lost": 0, "committed": 10}


def judgment(arm, question, quality, *, kind="none", rate=0.0, run=0, seed=0, text="a b a b"):
    metrics = {
        "quality": quality,
        "grammatical": quality,
        "coverage": 1.0,
        "right_count": 1.0,
        "words": 4,
        "too_long": 0.0,
        "adjectives": None if question == 0 else 0.25,
        "log_likelihood": None,
        "slack_share": 0.0,
        "forwards": 14,
    }
    cell = Cell(arm, 0.0, 14, kind, rate)
    return cell, Scored(run, seed, question, text, Dose(**DOSE), metrics)


def scores(rows, num_questions=3):
    scored = Scores(num_questions=num_questions)
    for cell, row in rows:
        scored.rows.setdefault(cell, []).append(row)
    return scored


def rng():
    return np.random.Generator(np.random.PCG64(0))


def test_scores_land_at_their_run_seed_and_question():
    rows = [
        judgment("ce", q, q + 10 * s + 100 * r, run=r, seed=s)
        for q in (2, 0, 1)
        for s in (1, 0)
        for r in (1, 0)
    ]
    array = scores(rows).array(Cell("ce", 0.0, 14, "none", 0.0), "quality")
    expected = [[[q + 10 * s + 100 * r for q in range(3)] for s in range(2)] for r in range(2)]
    np.testing.assert_array_equal(array, expected)


def test_missing_scores_are_counted_and_never_zero():
    rows = [judgment("ce", q, 1.0) for q in range(3)]
    (row,) = quality_rows(scores(rows), canvas_length=56, rng=rng())
    adjectives, likelihood = row.metrics["adjectives"], row.metrics["log_likelihood"]
    assert (adjectives.value, adjectives.num_scored, adjectives.num_total) == (0.25, 2, 3)
    assert (likelihood.value, likelihood.num_scored) == (None, 0)
    assert row.tokens_per_step == 4
    assert row.dose.model_dump() == {key: 3 * count for key, count in DOSE.items()}


def test_win_rates_pair_the_same_question_and_count_ties_half():
    rows = [judgment("ce", q, v) for q, v in enumerate([0.1, 0.5, 0.9])]
    rows += [judgment("slack_ctc", q, v) for q, v in enumerate([0.2, 0.5, 0.8])]
    rows += [judgment("base", q, 0.0) for q in range(3)]
    found = win_rate_rows(scores(rows), rng=rng())
    values = {(row.arm, row.against): row.value for row in found}
    assert values == {("ce", "base"): 1.0, ("slack_ctc", "base"): 1.0, ("slack_ctc", "ce"): 0.5}


def test_an_intervened_run_meets_its_own_plain_run_under_the_same_training_seed():
    rows = []
    for run, plain, probed in ((0, 0.9, 0.1), (1, 0.1, 0.9)):
        rows += [judgment("ce", q, plain, run=run) for q in range(3)]
        for seed in (0, 1):
            rows += [
                judgment("ce", q, probed, run=run, seed=seed, kind="shift", rate=0.1)
                for q in range(3)
            ]
    (row,) = win_rate_rows(scores(rows), rng=rng())
    assert row.against == "self"
    assert row.per_training_seed == [0.0, 1.0]
    assert row.value == 0.5


def test_all_win_rates_are_one_family():
    values = np.random.Generator(np.random.PCG64(1)).random((3, 40))
    rows = [
        judgment(arm, q, float(values[i, q]))
        for i, arm in enumerate(("base", "ce", "slack_ctc"))
        for q in range(40)
    ]
    found = win_rate_rows(scores(rows, num_questions=40), rng=rng())
    assert len(found) == 3
    ordered = sorted(row.p_value for row in found)
    by_hand = [min(p * 3 / (i + 1) for i, p in list(enumerate(ordered))[k:]) for k in range(3)]
    assert sorted(row.p_adjusted for row in found) == pytest.approx(by_hand)


def test_distinct_bigrams_counts_over_the_first_thousand_words_of_any_corpus():
    pairs = ["a b a b", "b a"] * 166 + ["a c d", "c c", "x y"]
    assert distinct_bigrams(pairs) == 4  # a b, b a, a c, c d: word 1,000 is the first c of c c
    assert distinct_bigrams(pairs[:-3]) is None
    assert distinct_bigrams([]) is None
