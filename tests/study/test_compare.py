import json
from dataclasses import replace

import numpy as np
import pytest

from slackdlm.benchmarks.answers import read_answer_file
from slackdlm.benchmarks.judgment_files import read_judgment_file
from slackdlm.benchmarks.style import style_of
from slackdlm.errors import ConfigError, DataError
from slackdlm.judgments import Game, Grade, write_judgments
from slackdlm.records import Answer
from slackdlm.statistics import (
    benjamini_hochberg,
    holm,
    mean_interval,
    sign_flip_test,
    win_rate,
)
from slackdlm.study.compare import compare
from slackdlm.study.comparison import Settings

FEW = Settings(num_resamples=500)
JUDGE = {"benchmark": "arena-hard", "judge": "j"}


def games(system, wins, *, rival="base", judge=JUDGE, category=None, flip=False):
    """Both orders of one question per entry: 1 a win, 0 a loss, None unparsable."""
    return [
        Game(
            f"q{number}", system, rival, order, score,
            None if score is None else "A>B" if (score == 1) == (order == 0) else "B>A",
            "unparsable" if score is None else "ok", category, judge,
        )
        for number, win in enumerate(wins)
        for order, score in ((0, win), (1, None if win is None else float(win != flip)))
    ]  # fmt: skip


def grades(system, scores, *, benchmark="wildbench"):
    return [
        Grade(f"q{n}", system, 1, score, "unparsable" if score is None else "ok", None,
              {"benchmark": benchmark, "judge": "j"})
        for n, score in enumerate(scores)
    ]  # fmt: skip


def rng():
    return np.random.default_rng(0)


def test_lines_are_the_statistics_of_the_questions():
    draws = np.random.default_rng(1)
    ours, theirs = draws.integers(0, 2, 60) * 1.0, draws.integers(0, 2, 60) * 1.0
    found = compare([*games("ours", ours), *games("theirs", theirs)], settings=FEW)
    assert [(line.kind, line.system, line.against) for line in found.lines] == [
        ("win rate", "ours", "base"),
        ("win rate", "theirs", "base"),
        ("difference", "ours", "theirs"),
    ]
    order = np.argsort([f"q{n}" for n in range(60)])
    rate = win_rate(ours[order], rng=rng(), num_resamples=500)
    first, _, last = found.lines
    assert first.estimate.value == pytest.approx(100 * rate.value)
    assert (first.estimate.low, first.estimate.high) == pytest.approx(
        (100 * rate.low, 100 * rate.high)
    )
    assert first.p_value == rate.p_value
    gap = mean_interval(ours[order] - theirs[order], rng=rng(), num_resamples=500)
    assert (last.estimate.value, last.estimate.low) == pytest.approx(
        (100 * gap.value, 100 * gap.low)
    )
    assert last.p_value == sign_flip_test((ours - theirs)[order], rng=rng(), num_resamples=500)


@pytest.mark.parametrize(("name", "adjust"), [("bh", benjamini_hochberg), ("holm", holm)])
def test_all_tested_lines_are_one_family(name, adjust):
    judgments = [
        *games("ours", [1.0] * 18 + [0.0] * 6),
        *games("theirs", [1.0] * 13 + [0.0] * 11),
        *grades("ours", [7.0, 8.0, 6.0, 9.0]),
        *grades("theirs", [6.0, 7.0, 6.0, 8.0]),
    ]
    found = compare(judgments, settings=replace(FEW, adjustment=name))
    raw = [line.p_value for line in found.lines]
    assert raw.count(None) == 2
    assert [line.p_adjusted for line in found.lines] == adjust(raw)


def test_categories_and_judges_are_kept_apart():
    other = {"benchmark": "arena-hard", "judge": "k"}
    judgments = [
        *games("m", [1.0] * 8, category="hard_prompt"),
        *games("m", [0.0] * 8, category="creative_writing"),
        *games("m", [0.0] * 8, category="hard_prompt", judge=other),
    ]
    found = compare(judgments, settings=FEW)
    assert [(line.benchmark, line.judge, line.estimate.value) for line in found.lines] == [
        ("arena-hard: hard_prompt", "j", 100.0),
        ("arena-hard: creative_writing", "j", 0.0),
        ("arena-hard: hard_prompt", "k", 0.0),
    ]
    assert any("2 identities" in warning for warning in found.warnings)


def test_grades_are_shown_on_the_benchmarks_own_scale():
    found = compare([*grades("m", [5.0, 7.0]), *grades("n", [5.0, 6.0])], settings=FEW)
    mean, _, gap = found.lines
    assert mean.estimate.value == pytest.approx((6 - 5) * 20)
    assert mean.published == {"WB-Score": pytest.approx(20.0)}
    assert gap.estimate.value == pytest.approx(0.5 * 20)
    assert mean.standard_error == pytest.approx(20 * 1.0)


def test_figures_of_the_benchmarks_own_tools_stand_beside_ours():
    """MT-Bench: grades out of range are averaged in, disagreement is a tie. WildBench: slight wins can be forgiven."""
    turns = [
        replace(g, turn=n + 1) for n, g in enumerate(grades("m", [9.0, 4.0], benchmark="mt-bench"))
    ]
    (mean,) = compare(turns, settings=FEW).lines
    assert mean.published == {"average": 6.5, "first turn": 9.0, "second turn": 4.0}
    mt_bench = {"benchmark": "mt-bench", "judge": "j"}
    split = games("m", [1.0, 0.0], judge=mt_bench, flip=True)
    (rate,) = compare(
        [*split, *games("m", [None, None, 1.0], judge=mt_bench)[4:]], settings=FEW
    ).lines
    assert rate.published == {"FastChat's adjusted win rate": pytest.approx(100 * 2 / 3)}
    outputs = {"model_outputs": {"m": "x" * 501, "base": ""}}
    wildbench = {"benchmark": "wildbench", "judge": "j"}
    both = games("m", [1.0], judge=wildbench)
    slight = [replace(both[0], score=0.75, extra=outputs)]
    (reward,) = compare(slight, settings=FEW).lines
    assert list(reward.published.values()) == [50.0, 0.0, 0]
    bare = [replace(game, extra={}) for game in slight]
    assert compare(bare, settings=FEW).lines[0].published == {}, "who knows what was truncated?"
    assert compare(both, settings=FEW).lines[0].published == {}, "published is one order"


def test_right_or_wrong_grades_get_mcnemar():
    ours, theirs = [1.0] * 9 + [0.0] * 3, [0.0] * 8 + [1.0] * 2 + [0.0] * 2
    found = compare(
        [*grades("m", ours, benchmark="x"), *grades("n", theirs, benchmark="x")], settings=FEW
    )
    assert found.lines[2].test == "exact McNemar"
    assert found.lines[2].p_value == pytest.approx(2 * (1 + 9) / 2**9)
    assert found.lines[0].published == {}


def test_missing_judgments_are_counted_bounded_and_warned_about():
    found = compare(games("m", [1.0] * 14 + [0.0] * 2 + [None] * 10), settings=FEW)
    (line,) = found.lines
    assert (line.estimate.num_scored, line.estimate.num_total) == (16, 26)
    assert line.estimate.value == pytest.approx(100 * 14 / 16)
    assert (line.bounds.low, line.bounds.high) == pytest.approx((100 * 14 / 26, 100 * 24 / 26))
    assert line.verdict == "better"
    assert "20 of 52 judgments are missing (20 unparsable" in found.warnings[0]
    many = compare(games("m", [1.0] * 14 + [0.0] * 2 + [None] * 20), settings=FEW).lines[0]
    assert many.verdict == "better, unless the 20 missing questions say otherwise"
    none = compare(games("m", [None] * 3), settings=FEW).lines[0]
    assert none.estimate.value is None
    assert none.verdict == "nothing scored in both"


def test_systems_are_compared_on_the_questions_that_all_have():
    found = compare([*games("m", [1.0] * 4 + [0.0, None]), *games("n", [0.0] * 4)], settings=FEW)
    m, n, gap = found.lines
    assert [line.estimate.value for line in found.lines] == [100.0, 0.0, 100.0]
    assert [line.estimate.num_total for line in found.lines] == [4, 4, 4]
    own = m.ours["over all its own questions"]
    assert (own.value, own.num_scored, own.num_total) == (80.0, 5, 6)
    assert "over all its own questions" not in n.ours
    assert gap.bounds.num_missing == 0
    assert "not judged on the same questions (n 4, m 6)" in found.warnings[0]
    assert "over the 4 questions that all have" in found.warnings[0]


def test_questions_that_are_missing_in_one_of_two_are_counted_and_bounded():
    found = compare([*games("m", [1.0] * 6), *games("n", [0.0] * 4 + [None] * 2)], settings=FEW)
    gap = found.lines[2]
    assert (gap.estimate.num_scored, gap.estimate.num_total) == (4, 6)
    assert (gap.bounds.low, gap.bounds.high) == pytest.approx((100 * 4 / 6, 100.0))
    assert gap.bounds.num_missing == 2


def test_without_a_question_in_common_nothing_is_compared():
    ours, theirs = grades("m", [5.0, 6.0]), grades("n", [7.0, 8.0])
    theirs = [replace(grade, question_id=f"other-{grade.question_id}") for grade in theirs]
    found = compare([*ours, *theirs], settings=FEW)
    assert [line.kind for line in found.lines] == ["mean", "mean"]
    assert "have no question in common (m 2, n 2)" in found.warnings[0]


def test_only_arena_hard_has_a_leaderboard_per_category():
    other = {"benchmark": "wildbench-pairs", "judge": "j"}
    ours = [
        *games("m", [1.0] * 3, category="x", judge=other),
        *games("m", [0.0] * 4, category="y", judge=other)[6:],
    ]
    (line,) = compare(ours, settings=FEW).lines
    assert (line.benchmark, line.estimate.num_total) == ("wildbench-pairs", 4)


def test_the_spread_is_that_of_what_was_scored():
    scored = [1.0] * 6 + [0.0] * 2
    line = compare(games("m", [*scored, None, None]), settings=FEW).lines[0]
    assert line.spread == pytest.approx(100 * np.std(scored, ddof=1))
    alike = compare(games("m", [1.0] * 4), settings=FEW).lines[0]
    assert (alike.spread, alike.detectable) == (None, None)
    assert alike.verdict == "no difference shown: 4 questions, all alike"


def test_verdicts_at_the_edge():
    clear = compare(games("m", [1.0] * 5), settings=replace(FEW, alpha=0.0625)).lines[0]
    assert (clear.p_adjusted, clear.verdict) == (0.0625, "better")
    half = compare(games("m", [1.0] * 14 + [None] * 14), settings=FEW).lines[0]
    assert half.bounds.low == 50.0
    assert half.verdict == "better, unless the 14 missing questions say otherwise"
    worse = compare(games("m", [0.0] * 14 + [None] * 14), settings=FEW).lines[0]
    assert worse.verdict == "worse, unless the 14 missing questions say otherwise"
    share = replace(FEW, max_missing=0.25)
    assert compare(games("m", [1.0] * 3 + [None]), settings=share).warnings == ()


def test_grades_of_an_unknown_scale_are_bounded_by_what_was_seen():
    line = compare(grades("m", [3.0, 5.0, None], benchmark="x"), settings=FEW).lines[0]
    assert (line.bounds.low, line.bounds.high) == pytest.approx((11 / 3, 13 / 3))


def test_systems_with_different_rivals_have_no_difference():
    judged = [*games("m", [1.0] * 4), *games("n", [0.0] * 4, rival="other")]
    assert [line.kind for line in compare(judged, settings=FEW).lines] == ["win rate"] * 2


def test_a_small_study_says_what_it_could_not_see():
    found = compare(games("m", [1.0, 0.0] * 10), settings=FEW)
    assert found.lines[0].verdict.startswith("no difference shown; one below 3")
    one = compare(games("m", [1.0]), settings=FEW).lines[0]
    assert one.verdict == "no difference shown: one question"


def test_adding_a_benchmark_changes_no_other_lines_numbers():
    alone = compare(games("m", [1.0] * 9 + [0.0] * 5), settings=FEW).lines[0]
    beside = compare(
        [*grades("m", [5.0, 6.0]), *games("m", [1.0] * 9 + [0.0] * 5)], settings=FEW
    ).lines[1]
    assert replace(beside, p_adjusted=0.0) == replace(alone, p_adjusted=0.0)


def test_the_judge_is_reported(tmp_path):
    found = compare(
        games("m", [1.0] * 10, flip=True),
        settings=FEW,
        lengths={
            (f"q{n}", name): size for n in range(10) for name, size in (("m", 9), ("base", 3))
        },
    )
    (report,) = found.judges
    assert (report.position.num_pairs, report.position.num_same) == (10, 0)
    assert report.position.first.value == 1.0
    assert report.length.value == 0.5
    assert json.loads(report.identity) == JUDGE


def test_style_control_needs_one_baseline():
    answers = [Answer(f"q{n}", s, ("a b",)) for n in range(8) for s in ("m", "n", "base", "other")]
    style = style_of(answers)
    assert style.length_unit == "words"
    settings = replace(FEW, covariates=("length",))
    judged = games("m", [1.0, 0.0] * 4)
    found = compare(judged, settings=settings, style=style.metadata)
    assert found.judges[0].style.win_rates["m"].value == pytest.approx(0.5)
    with pytest.raises(DataError, match="one common baseline"):
        compare(
            [*judged, *games("n", [1.0] * 8, rival="other")],
            settings=settings,
            style=style.metadata,
        )


def test_what_cannot_be_compared_is_one_error():
    with pytest.raises(DataError, match="no judgment"):
        compare([])
    with pytest.raises(DataError, match="from both sides"):
        compare([*games("m", [1.0]), *games("base", [1.0], rival="m")], settings=FEW)
    with pytest.raises(DataError, match="two judgments of the same order"):
        compare([*games("m", [1.0]), *games("m", [0.0])], settings=FEW)
    with pytest.raises(ConfigError, match="alpha"):
        Settings(alpha=0.0)


# Files


def test_every_kind_of_judgment_file_is_recognised(excerpts, tmp_path):
    own = tmp_path / "own.jsonl"
    write_judgments(own, games("m", [1.0]))
    assert read_judgment_file(own)[0].a == "m"
    write_judgments(own, grades("m", [5.0]))
    assert read_judgment_file(own)[0].score == 5.0
    assert isinstance(read_judgment_file(excerpts / "arena_hard/v0.1_judgments.jsonl")[0], Game)
    assert isinstance(read_judgment_file(excerpts / "mt_bench/judgments.jsonl")[0], Grade)
    named = tmp_path / "gemma.json"
    named.write_text(json.dumps([{"session_id": "s", "score": "7"}]))
    assert read_judgment_file(named)[0].system == "gemma"
    with pytest.raises(DataError, match="holds no judgments of a known kind"):
        read_judgment_file(excerpts / "mt_bench/questions.jsonl")


def test_every_kind_of_answer_file_is_recognised(excerpts, tmp_path):
    names = ("arena_hard/v2.0_answers", "arena_hard/v0.1_answers", "mt_bench/answers")
    found = [read_answer_file(excerpts / f"{name}.jsonl") for name in names]
    assert [answers[0].system for answers in found] == [
        "o3-mini-2025-01-31", "gpt-4-0314", "instructlab/granite-7b-lab",
    ]  # fmt: skip
    assert style_of(found[0]).length_unit == "tokens"
    mixed = style_of([*found[0], *found[1]])
    assert mixed.length_unit == "words"
    ours = tmp_path / "answers.jsonl"
    ours.write_text(json.dumps({"id": "q", "turn": 1, "system": "m", "text": "one two"}) + "\n")
    assert style_of(read_answer_file(ours)).lengths == {("q", "m"): 2}
    with pytest.raises(DataError, match="holds no answers of a known kind"):
        read_answer_file(excerpts / "mt_bench/questions.jsonl")
    with pytest.raises(DataError, match="answers a question twice"):
        style_of([*found[0], *found[0]])
