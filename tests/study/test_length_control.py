"""AlpacaEval's length-controlled win rate against the published code, and its interval against a bootstrap."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

from slackdlm.errors import DataError
from slackdlm.judgments import Game
from slackdlm.statistics.bootstrap import Estimate
from slackdlm.statistics.logistic import Rows, fit_l1
from slackdlm.study.length_control import Gamed, length_controlled_win_rate, read_gamed

NUM = 60


def part(value: float) -> float:
    return value - math.floor(value)


def game(n: int, score: float | None, outputs: dict[str, str]) -> Game:
    return Game(
        question_id=str(n), a="m", b="b", order=1, score=score, verdict=None,
        status="ok" if score is not None else "failed", category=None, judge_identity={}, extra=outputs,
    )  # fmt: skip


IDS = [str(n) for n in range(NUM)]
DIFFICULTY = [3 * part(n * 0.732051) - 1.5 for n in range(NUM)]


def judged(*, equal: bool = False) -> list[Game]:
    """Made-up judgments in which the longer answer is preferred, by formula."""
    games: list[Game] = []
    for n in range(NUM):
        base, own = 200 + int(400 * part(n * 0.618034)), 100 + int(700 * part(n * 0.414214 + 0.3))
        odds = 0.4 + 0.9 * math.tanh((own - base) / 300) + 0.6 * DIFFICULTY[n]
        score = round(1 / (1 + math.exp(-odds - 2 * (part(n * 0.236068) - 0.5))), 6)
        outputs = {"output_1": "x" * base, "output_2": "y" * (base if equal else own)}
        games.append(game(n, score, outputs))
    return games


@pytest.fixture
def gamed_file(tmp_path: Path) -> Path:
    lines = ["model,preference,index,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for k in range(2):
        for n in range(NUM):
            length = 2.4 * part(n * 0.302776 + k * 0.5) - 1.2 - k * 0.3
            odds = -1.2 * math.tanh(length) + 0.5 * DIFFICULTY[n] + part(n * 0.541381) - 0.5
            preference = round(1 / (1 + math.exp(-odds)), 6)
            lines.append(f"g{k},{preference},{n},{length!r},{DIFFICULTY[n]!r},False")
    file = tmp_path / "df_gamed.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_it_is_the_published_figure(gamed_file: Path) -> None:
    """glm_winrate.py at cd543a14 with scikit-learn 1.9.1 gives these, at tolerance 1e-9 and at its own."""
    result = length_controlled_win_rate(judged(), gamed=read_gamed(gamed_file, question_ids=IDS))
    assert result.estimate.value == pytest.approx(0.58571901671047, abs=2e-7)
    assert result.estimate.value == pytest.approx(0.58572160814274866, abs=1e-5)
    minimal = length_controlled_win_rate(judged())
    assert minimal.estimate.value == pytest.approx(0.5853040744202247, abs=2e-7)
    assert set(minimal.coefficients) == {"length", "constant"}
    assert result.coefficients["length"] < 0, "the model's longer answers win more"
    raw = np.mean([each.score for each in judged() if each.score is not None])
    assert result.estimate.value < raw


def test_difficulties_are_those_of_the_question_whatever_the_order_of_the_judgments(
    gamed_file: Path,
) -> None:
    gamed = read_gamed(gamed_file, question_ids=IDS)
    result = length_controlled_win_rate(judged(), gamed=gamed)
    assert length_controlled_win_rate(judged()[::-1], gamed=gamed) == result
    turned = read_gamed(gamed_file, question_ids=IDS[::-1])
    assert length_controlled_win_rate(judged(), gamed=turned) != result


def test_the_interval_is_that_of_a_bootstrap_over_questions(gamed_file: Path) -> None:
    gamed = read_gamed(gamed_file, question_ids=IDS)
    result = length_controlled_win_rate(judged(), gamed=gamed).estimate
    own = np.array([each.score for each in judged()], dtype=np.float64)
    differences = np.array([len(g.extra["output_1"]) - len(g.extra["output_2"]) for g in judged()])
    length, ones = np.tanh(differences / differences.std(ddof=1)), np.ones(NUM)
    extra = np.stack([np.tanh(gamed.length), gamed.difficulty[gamed.question]], axis=1)
    rng, values = np.random.default_rng(0), []
    for _ in range(100):
        drawn = rng.integers(0, NUM, NUM)
        both = np.concatenate([drawn, drawn + NUM])
        features = np.concatenate(
            [
                np.column_stack([extra[both], np.zeros(2 * NUM)]),
                np.column_stack([length, gamed.difficulty, ones])[drawn],
            ]
        )
        outcomes = np.concatenate([gamed.preference[both], own[drawn]])
        weights = np.concatenate([np.full(2 * NUM, 0.1), np.ones(NUM)])
        at = fit_l1(Rows(features, outcomes, weights, np.arange(3 * NUM)), strength=1e4)
        values.append(expit(at[1] * gamed.difficulty[drawn] + at[2]).mean())
    assert result.low is not None
    assert result.high is not None
    assert (result.high - result.low) / 3.92 == pytest.approx(np.std(values), rel=0.25)


def test_equal_lengths_leave_the_win_rate_as_it_is() -> None:
    result = length_controlled_win_rate(judged(equal=True))
    raw = np.mean([each.score for each in judged() if each.score is not None])
    assert result.estimate.value == pytest.approx(raw, abs=1e-3)
    assert result.coefficients["length"] == 0.0


def test_the_fit_satisfies_the_conditions_of_an_l1_optimum() -> None:
    rng = np.random.default_rng(3)
    features, weights = rng.normal(size=(80, 3)), rng.uniform(0.5, 2, 80)
    outcomes = expit(features @ [1.5, 0.02, -1.0] + rng.normal(size=80))
    for strength in (0.05, 1.0, 1e4):
        at = fit_l1(Rows(features, outcomes, weights, np.arange(80)), strength=strength)
        slope = strength * (features.T @ (weights * (outcomes - expit(features @ at))))
        np.testing.assert_allclose(slope[at != 0], np.sign(at)[at != 0], atol=1e-3 * strength)
        assert (np.abs(slope[at == 0]) <= 1 + 1e-6).all()


def test_missing_judgments_are_predicted_as_published_and_counted() -> None:
    games = judged()
    games[7] = game(7, None, dict(games[7].extra))
    games[8] = game(8, None, {})
    result = length_controlled_win_rate(games).estimate
    assert (result.num_scored, result.num_total) == (58, 60)
    assert length_controlled_win_rate(games[:4]).estimate.value is None
    assert length_controlled_win_rate(games[:1]).estimate.value is None
    assert length_controlled_win_rate(games[:5]).estimate.value is not None


def test_at_equal_length_the_interval_is_that_of_the_mean_score() -> None:
    """Of a constant alone the influence of a question is its residual, however strongly the penalty draws on it."""
    scores = [float(7 * n % NUM < 38) for n in range(NUM)]
    games = [replace(each, score=s) for each, s in zip(judged(equal=True), scores, strict=True)]
    result = length_controlled_win_rate(games).estimate
    assert result.value is not None
    assert result.low is not None
    assert result.high is not None
    assert result.value < 38 / NUM - 5e-4, "the penalty is felt"
    error = np.std(scores, ddof=1) / math.sqrt(NUM)
    half = norm.ppf(0.975) * error / (result.value * (1 - result.value))
    ends = logit(np.array([result.low, result.high])) - logit(result.value)
    np.testing.assert_allclose(ends, [-half, half], rtol=1e-8)


def test_only_relative_lengths_count() -> None:
    """Differences of single characters are differences."""
    few, many = (
        [replace(each, extra={"output_1": "x" * times * (n % 3), "output_2": "y" * times})
         for n, each in enumerate(judged())]
        for times in (1, 50)
    )  # fmt: skip
    result = length_controlled_win_rate(few)
    assert result.coefficients["length"] != 0
    assert length_controlled_win_rate(many) == result


@pytest.mark.parametrize("win", [1.0, 0.0])
def test_a_win_rate_at_the_end_of_its_scale_has_no_interval(win: float) -> None:
    """Wins alone, and losses that their length alone explains: nothing tells how far it is to the end."""
    alike = length_controlled_win_rate([replace(each, score=win) for each in judged()]).estimate
    assert alike.value == pytest.approx(win, abs=1e-5)
    assert (alike.low, alike.high) == (None, None)
    outputs = [{"output_1": "x" * (n + 1), "output_2": ""} for n in range(20)]
    games = [game(n, win if n < 15 else 1 - win, told) for n, told in enumerate(outputs)]
    explained = length_controlled_win_rate(games).estimate
    assert (explained.value, explained.low, explained.high) == (win, None, None)
    one_apart = [replace(each, score=win) for each in judged()[1:]]
    assert length_controlled_win_rate(
        [*one_apart, replace(judged()[0], score=1 - win)]
    ).estimate.low


def test_ties_alone_are_a_tie_without_an_interval() -> None:
    result = length_controlled_win_rate([replace(each, score=0.5) for each in judged()])
    assert result.coefficients == {"length": 0.0, "constant": 0.0}
    assert result.estimate == Estimate(0.5, None, None, NUM, NUM)


def test_the_first_row_of_an_instruction_has_its_difficulty(gamed_file: Path) -> None:
    first = read_gamed(gamed_file, question_ids=IDS)
    lines = gamed_file.read_text().splitlines()
    lines[1 + NUM + 3] = lines[1 + NUM + 3].replace(repr(DIFFICULTY[3]), "77.0")
    gamed_file.write_text("\n".join(lines) + "\n")
    assert "77.0" in gamed_file.read_text()
    again = read_gamed(gamed_file, question_ids=IDS)
    np.testing.assert_array_equal(again.difficulty, first.difficulty)
    np.testing.assert_array_equal(again.difficulty, DIFFICULTY)


def test_other_judgments_and_files_are_errors(gamed_file: Path, tmp_path: Path) -> None:
    gamed: Gamed = read_gamed(gamed_file, question_ids=IDS)
    for games, message in (
        (judged()[1:], "0 judged instructions are not in the question file, and 1 of its 60 are not judged"),
        ([*judged()[1:], replace(judged()[0], question_id="x")], "1 judged .*, such as 'x', and 1 of its 60 are not"),
        ([*judged(), replace(judged()[0], question_id="x")], "1 judged .*, such as 'x', and 0 of its 60 are not"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            length_controlled_win_rate(games, gamed=gamed)
    with pytest.raises(DataError, match="game on '0' does not hold both outputs"):
        length_controlled_win_rate([game(0, 0.5, {"output_1": "x"}), *judged()[1:]])
    text = gamed_file.read_text()
    for broken, message in (
        ("a,b\n1,2\n", "expected AlpacaEval's df_gamed.csv with index"),
        (text.replace("g0,", "g0,x", 1), "expected numbers in"),
        (text.replace(",59,", ",61,"), "every instruction from 0 to 61"),
        (text.replace(repr(DIFFICULTY[3]), "inf"), "expected finite numbers"),
    ):
        (tmp_path / "broken.csv").write_text(broken)
        with pytest.raises(DataError, match=message):
            read_gamed(tmp_path / "broken.csv", question_ids=IDS)
    with pytest.raises(DataError, match="of 60 instructions and the question file has 59"):
        read_gamed(gamed_file, question_ids=IDS[1:])
