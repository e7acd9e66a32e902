from itertools import combinations

import numpy as np
import pytest
from games import pairs
from scipy.optimize import minimize
from scipy.special import expit

from slackdlm.benchmarks.arena_hard import read_judgments
from slackdlm.benchmarks.style import style_metadata
from slackdlm.errors import ConfigError, DataError
from slackdlm.statistics.logistic import Rows, fit_logistic
from slackdlm.study.style_control import COVARIATES, style_control, style_differences

SUBSETS = [list(c) for size in range(5) for c in combinations(COVARIATES, size)]
LABELS = ["A>>B", "A>B", "A=B", "B>A", "B>>A"]


def study(seed=0, num=150, systems=("m",)):
    """Games whose winner depends on length, and the style of all answers."""
    draws = np.random.default_rng(seed)
    games, style = {}, {}
    for system in systems:
        verdicts = []
        for number in range(num):
            lengths = draws.integers(20, 400, size=2)
            for name, length in zip((system, "base"), lengths, strict=True):
                if (f"q{number}", name) in style:
                    continue
                style[f"q{number}", name] = {
                    "token_len": int(length),
                    "header_count": {"h1": int(draws.integers(0, 9)), "h2": 1},
                    "list_count": {"ordered": int(draws.integers(0, 30)), "unordered": 0},
                    "bold_count": {"**": int(draws.integers(0, 30)), "__": 0},
                }
            own, other = (style[f"q{number}", name]["token_len"] for name in (system, "base"))
            chance = expit(-0.3 + 2 * (own - other) / (own + other))
            side = [draws.random() < chance for _ in range(2)]
            strong = draws.choice([">", ">>"], size=2)
            verdicts.append(
                tuple(
                    f"A{s}B" if win == (order == 0) else f"B{s}A"
                    for order, (win, s) in enumerate(zip(side, strong, strict=True))
                )
            )
        games[system] = pairs(*verdicts, a=system)
    return games, style


def reference(games, style, covariates, centred):
    """The same likelihood, rows written out one by one, maximised by another method."""
    columns, outcomes, system_of = [], [], []
    systems = sorted(games)
    for place, system in enumerate(systems):
        for each in games[system]:
            repeat = 3 if ">>" in each.verdict else 1
            columns += [style_differences(style, each)] * repeat
            outcomes += [each.score] * repeat
            system_of += [place] * repeat
    table = np.array(columns)[:, [COVARIATES.index(name) for name in covariates]]
    table = (table - (table.mean(axis=0) if centred else 0)) / table.std(axis=0, ddof=1)
    features = np.concatenate([np.eye(len(systems))[system_of], table], axis=1)
    outcomes = np.array(outcomes)

    def loss(at):
        logits = features @ at
        return np.sum(np.logaddexp(0, logits) - outcomes * logits)

    return minimize(loss, np.zeros(features.shape[1]), method="BFGS", tol=1e-8).x


@pytest.mark.parametrize("covariates", SUBSETS, ids=lambda names: "+".join(names) or "none")
@pytest.mark.parametrize("centred", [False, True])
def test_every_subset_of_covariates_is_its_own_maximum_likelihood(covariates, centred):
    games, style = study(systems=("m", "n"), num=60)
    result = style_control(games, style, covariates=covariates, centred=centred)
    expected = reference(games, style, covariates, centred)
    assert result.converged
    values = [result.win_rates["m"].value, result.win_rates["n"].value]
    assert values == pytest.approx(expit(expected[:2]), abs=2e-4)
    assert [result.coefficients[n] for n in covariates] == pytest.approx(expected[2:], abs=1e-3)


def test_without_covariates_it_is_the_weighted_win_rate():
    games, style = study()
    result = style_control(games, style, covariates=[])
    rows = [(g.score, 3 if ">>" in g.verdict else 1) for g in games["m"]]
    assert result.win_rates["m"].value == pytest.approx(
        sum(s * w for s, w in rows) / sum(w for _, w in rows)
    )


def test_a_win_by_length_alone_is_taken_out():
    games, style = study(seed=1, num=400)
    for number in range(400):
        style[f"q{number}", "m"]["token_len"] += 300
    plain = style_control(games, style, covariates=[]).win_rates["m"]
    fair = style_control(games, style, covariates=["length"])
    assert fair.coefficients["length"] > 0
    # The games were played at equal average length and a strength of -0.3; now the model looks longer.
    assert fair.win_rates["m"].value < plain.value - 0.1


def test_the_interval_is_clustered_by_question():
    games, style = study(num=300)
    result = style_control(games, style, covariates=[]).win_rates["m"]
    assert result.low < result.value < result.high
    assert (result.num_scored, result.num_total) == (300, 300)
    outcomes = np.array([1, 1, 0, 0, 1, 1, 1, 1.0])
    by_row, by_pair = (
        fit_logistic(Rows(np.ones((8, 1)), outcomes, np.ones(8), clusters)).errors[0]
        for clusters in (np.arange(8), np.arange(8) // 2)
    )
    p = 0.75
    assert by_row == pytest.approx(np.sqrt(8 / 7 * 8 * p * (1 - p)) / (8 * p * (1 - p)))
    assert by_pair > 1.3 * by_row


def test_no_finite_maximum_is_no_number():
    _, style = study(num=20)
    won = {"m": pairs(*[("A>B", "B>A")] * 20)}
    result = style_control(won, style)
    assert not result.converged
    assert result.win_rates["m"].value is None
    assert result.coefficients == {}
    assert style_control({"m": []}, style).win_rates["m"].num_total == 0


def test_a_covariate_that_never_varies_changes_nothing():
    games, style = study()
    for row in style.values():
        row["bold_count"] = {"**": 0}
    whole = style_control(games, style)
    other = style_control(games, style, covariates=["length", "headers", "lists"])
    assert whole.win_rates == other.win_rates
    assert whole.coefficients["bold"] == 0.0


def test_markup_counts_per_token_and_one_so_that_empty_answers_have_a_density():
    told = {"header_count": {"h1": 2}, "list_count": {}, "bold_count": {"**": 1}}
    empty = {"header_count": {"h1": 1}, "list_count": {}, "bold_count": {}}
    style = {("q0", "m"): told | {"token_len": 3}, ("q0", "base"): empty | {"token_len": 0}}
    headers, bold = (2 / 4, 1 / 1), (1 / 4, 0.0)
    assert style_differences(style, pairs(("A>B", "A>B"))[0]) == pytest.approx(
        [1.0, *((x - y) / (x + y + 1) for x, y in (headers, (0.0, 0.0), bold))]
    )


def test_a_question_without_both_games_is_left_out():
    games, style = study(num=60)
    style["q60", "m"], style["q60", "base"] = style["q0", "m"], style["q0", "base"]
    half = pairs(*[("A>B", "A>B")] * 60, ("A>>B", None))[-2:]
    alone, beside = (
        style_control({"m": [*games["m"], *more]}, style).win_rates["m"] for more in ([], half)
    )
    assert (beside.value, beside.low, beside.high) == (alone.value, alone.low, alone.high)
    assert (beside.num_scored, beside.num_total) == (60, 61)


def test_one_question_has_a_value_and_no_interval():
    _, style = study(num=1)
    result = style_control({"m": pairs(("A>>B", "A>B"))}, style, covariates=[]).win_rates["m"]
    assert result.value == pytest.approx(0.75)
    assert (result.low, result.high) == (None, None)


def test_games_that_all_agree_have_no_interval_of_no_width():
    _, style = study(num=9)
    result = style_control({"m": pairs(*[("A=B", "A=B")] * 9)}, style).win_rates["m"]
    assert (result.value, result.low, result.high) == (0.5, None, None)


def test_bad_requests_are_one_error():
    games, style = study(num=5)
    with pytest.raises(ConfigError, match="no covariate 'words'; use some of length"):
        style_control(games, style, covariates=["words"])
    with pytest.raises(ConfigError, match="bold is named twice"):
        style_control(games, style, covariates=["bold", "bold"])
    with pytest.raises(DataError, match="give both answer files"):
        style_control(games, {})
    style["q0", "m"] = {"token_len": -1}
    with pytest.raises(DataError, match="a count of at least 0"):
        style_control(games, style)
    style["q0", "m"] = {"token_len": 1}
    with pytest.raises(DataError, match="no header_count"):
        style_control(games, style)


def test_published_bagel_8b_by_length(published):
    games = read_judgments(
        published / "arena_hard" / "v0.1_judgment_bagel-8b_by_R1-Distill-70B.jsonl"
    )
    style = {}
    for each in games:
        shown = each.prompt[0]["content"].split("'s Answer|>\n")
        first, second = shown[1].split("\n<|The End")[0], shown[3].split("\n<|The End")[0]
        for name, text in zip(
            (each.a, each.b) if each.order == 0 else (each.b, each.a), (first, second), strict=True
        ):
            style[each.question_id, name] = style_metadata(text, num_tokens=len(text.split()))
    system = games[0].a
    result = style_control({system: games}, style, covariates=["length"], centred=True)
    # Arena-Hard's own fit, run on this file: 0.06507 after its 50 steps, 0.06219 after 2,000.
    assert result.win_rates[system].value == pytest.approx(0.062085, abs=1e-5)
    assert result.coefficients["length"] == pytest.approx(-0.227538, abs=1e-5)
