import json
import statistics
from dataclasses import replace

import pytest

from slackdlm.errors import ConfigError, DataError
from slackdlm.judging.budget import Budget
from slackdlm.judging.judges import ExactJudge
from slackdlm.judging.protocols import judging_protocol
from slackdlm.judgments import Game, read_games
from slackdlm.records import Question
from slackdlm.sampling.intervention import Dose
from slackdlm.sampling.sampler import SamplerConfig
from slackdlm.study.grid import Arm, Condition, Grid, check_arms
from slackdlm.study.probe import answer_probe, judge_probe, num_judgments, read_doses
from slackdlm.study.probe_figures import probe_result
from slackdlm.study.toy_judge import compare
from slackdlm.study.toy_language import write_tasks

TASKS = write_tasks(6, seed=5)
QUESTIONS = [
    Question(str(n), None, ({"role": "user", "content": task.prompt},))
    for n, task in enumerate(TASKS)
]
PAIRS = judging_protocol("pairs")
GRID = Grid(
    sampler=SamplerConfig(canvas_length=12, steps=4),
    rates=(0.1, 0.5),
    kinds=("shift", "drop"),
    num_seeds=2,
)


@pytest.fixture(scope="module")
def answered(toy, tmp_path_factory):
    output = tmp_path_factory.mktemp("probe")
    arms = [Arm("ce", "m1", lambda: toy), Arm("slack", "m2", lambda: toy)]
    answer_probe(arms, QUESTIONS, GRID, output)
    return output


def judge(answered, judge=None, **options):
    chosen = judge or ExactJudge("toy", compare)
    return judge_probe(PAIRS, chosen, QUESTIONS, ["ce", "slack"], GRID, answered, **options)


def result(output):
    games = [
        g for arm in ("ce", "slack") for g in read_games(output / "judgments" / f"{arm}.jsonl")
    ]
    doses = read_doses(["ce", "slack"], GRID, output)
    return figures(games, doses, {"ce": "m1", "slack": "m2"})


def figures(games, doses, arms):
    exact = ExactJudge("toy", compare)
    return probe_result(games, doses, GRID, arms, benchmark="pairs", judge=exact, num_resamples=200)


def test_greedy_answers_are_undisturbed_once_and_disturbed_per_seed(answered):
    names = sorted(file.name for file in (answered / "answers" / "ce").glob("*.jsonl"))
    assert names == sorted(
        ["none-seed-0.jsonl"]
        + [f"{k}-{r}-seed-{s}.jsonl" for k in ("shift", "drop") for r in ("0.1", "0.5") for s in (0, 1)]
    )  # fmt: skip
    sampled = Grid(sampler=SamplerConfig(canvas_length=12, steps=4, temperature=1.0), num_seeds=2)
    assert sampled.seeds(*sampled.plain()) == [0, 1]


def test_every_disturbed_answer_meets_its_own_undisturbed_one_in_both_orders(answered):
    judge(answered)
    games = read_games(answered / "judgments" / "ce.jsonl")
    assert len(games) == 2 * 2 * 2 * len(QUESTIONS) * 2  # kinds, rates, seeds, questions, orders
    assert {game.b for game in games} == {"ce/none/seed-0"}
    assert {game.a.split("/")[0] for game in games} == {"ce"}


def test_rows_hold_the_mean_over_seeds_and_the_dose_of_the_answers(answered):
    judge(answered)
    found = result(answered)
    assert [(row.arm, row.kind, row.rate) for row in found.win_rates] == [
        (arm, kind, rate) for arm in ("ce", "slack") for kind in ("shift", "drop") for rate in (0.1, 0.5)
    ]  # fmt: skip
    row = found.win_rates[1]
    games = read_games(answered / "judgments" / "ce.jsonl")
    own = [game.score for game in games if game.a.startswith("ce/shift-0.5/")]
    assert row.value == pytest.approx(sum(own) / len(own))
    lines = [
        json.loads(line)
        for seed in (0, 1)
        for line in GRID.answer_file(answered, "ce", Condition(GRID.sampler, "shift", 0.5), seed)
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    assert row.dose.displaced == sum(line["dose"]["displaced"] for line in lines) > 0
    assert row.num_scored == row.num_total == len(QUESTIONS)


def test_two_arms_of_one_model_do_not_differ_and_trends_are_per_arm_and_kind(answered):
    judge(answered)
    found = result(answered)
    assert [contrast.value for contrast in found.contrasts] == [0.0] * 4
    assert {(t.arm, t.kind) for t in found.trends} == {
        ("ce", "shift"), ("ce", "drop"), ("slack", "shift"), ("slack", "drop")
    }  # fmt: skip


def test_judging_again_asks_nothing(answered):
    judge(answered)

    def refuse(question, shown):
        raise AssertionError("asked again")

    again = judge(answered, ExactJudge("toy", refuse))
    assert sum(run.new.calls for run in again) == 0


def test_games_that_a_budget_left_out_are_missing_and_named(toy, tmp_path):
    answer_probe([Arm("ce", "m", lambda: toy)], QUESTIONS, GRID, tmp_path)
    exact = ExactJudge("toy", compare)
    assert num_judgments(PAIRS, exact, QUESTIONS, ["ce"], GRID, tmp_path) == 2 * 2 * 2 * 6 * 2
    runs = judge_probe(PAIRS, exact, QUESTIONS, ["ce"], GRID, tmp_path, budget=Budget(max_calls=5))
    assert runs[0].stopped is not None
    games = read_games(tmp_path / "judgments" / "ce.jsonl")
    doses = read_doses(["ce"], GRID, tmp_path)
    found = figures(games, doses, {"ce": "m"})
    assert any("have no score" in text for text in found.warnings)
    assert min(row.num_scored for row in found.win_rates) < len(QUESTIONS)


def test_a_second_call_loads_no_model(answered):
    def refuse():
        raise AssertionError("loaded again")

    answer_probe([Arm("ce", "m1", refuse)], QUESTIONS, GRID, answered)


def test_a_folder_of_an_earlier_version_with_fewer_settings_is_continued(answered):
    file = answered / "plan.json"
    before = file.read_text(encoding="utf-8")
    plan = json.loads(before)
    assert plan["device"] == "cpu"
    del plan["sampler"]["delay_slack"], plan["device"]
    plan["sampler"]["batch_size"] = 32
    try:
        file.write_text(json.dumps(plan), encoding="utf-8")
        answer_probe([Arm("ce", "m1", lambda: None)], QUESTIONS, GRID, answered)
        other = replace(GRID, sampler=replace(GRID.sampler, delay_slack=True))
        with pytest.raises(ConfigError, match="a probe with other sampler"):
            answer_probe([Arm("ce", "m1", lambda: None)], QUESTIONS, other, answered)
    finally:
        file.write_text(before, encoding="utf-8")


def test_the_batch_size_may_change(answered):
    plan = replace(GRID, sampler=replace(GRID.sampler, batch_size=2))
    answer_probe([Arm("ce", "m1", lambda: None)], QUESTIONS, plan, answered)


def test_a_probe_is_decoded_on_one_kind_of_device(toy, tmp_path):
    arms = [Arm("ce", "m1", lambda: toy)]
    once = replace(GRID, rates=(0.5,), kinds=("shift",), num_seeds=1)
    answer_probe(arms, QUESTIONS[:1], once, tmp_path)
    file = tmp_path / "plan.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"cpu"', '"cuda"'), encoding="utf-8")
    before = sorted(tmp_path.rglob("*.jsonl"))
    more = replace(once, rates=(0.5, 0.9))
    answer_probe(arms, QUESTIONS[:1], once, tmp_path)  # nothing is missing: nothing is loaded
    with pytest.raises(
        ConfigError, match=r"answers decoded on cuda, .* is on cpu; give --device cuda"
    ):
        answer_probe(arms, QUESTIONS[:1], more, tmp_path)
    assert sorted(tmp_path.rglob("*.jsonl")) == before


@pytest.mark.parametrize(
    ("arm", "questions", "plan", "message"),
    [
        (Arm("ce", "other", None), QUESTIONS, GRID, "there ce is m1, not other"),
        (Arm("ce", "m1", None), QUESTIONS[:3], GRID, "a probe with other questions"),
        (Arm("ce", "m1", None), QUESTIONS,
         Grid(sampler=SamplerConfig(canvas_length=12, steps=6)), "a probe with other sampler"),
    ],
)  # fmt: skip
def test_a_folder_of_another_probe_is_refused(answered, arm, questions, plan, message):
    with pytest.raises(ConfigError, match=message):
        answer_probe([arm._replace(load=lambda: None)], questions, plan, answered)


def test_questions_that_do_not_fit_are_named_and_leave_no_file(toy, tmp_path):
    bad = [*QUESTIONS, Question("x", None, ({"role": "user", "content": "unknown words"},))]
    with pytest.raises(DataError, match=r"1 questions cannot be put to ce, the first is 'x'"):
        answer_probe([Arm("ce", "m", lambda: toy)], bad, GRID, tmp_path)
    assert not list(tmp_path.glob("answers/ce/*.jsonl"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rates": ()}, "at least one rate"),
        ({"rates": (0.0,)}, "rates must be above 0"),
        ({"rates": (0.1, 0.1)}, "rates holds a value twice"),
        ({"rates": (1.0,), "kinds": ("drop",)}, "drop needs a rate below 1"),
        ({"num_seeds": 0}, "at least 1 decoding seed"),
    ],
)
def test_a_plan_that_cannot_be_decoded_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Grid(sampler=SamplerConfig(canvas_length=4), **options)


@pytest.mark.parametrize("names", [[], ["a", "a"], ["../a"], [".."], ["a b"]])
def test_arm_names_are_different_and_fit_for_files(names):
    with pytest.raises(ConfigError, match="probe:"):
        check_arms([Arm(name, "m", lambda: None) for name in names])


def test_a_benchmark_of_grades_is_refused(answered):
    with pytest.raises(ConfigError, match="mt-bench grades single answers"):
        judge_probe(
            judging_protocol("mt-bench"), ExactJudge("toy", compare), QUESTIONS, ["ce"], GRID, answered
        )  # fmt: skip


def test_a_model_that_is_not_there_leaves_the_folder_free(toy, tmp_path):
    def missing():
        raise ConfigError("no such folder")

    with pytest.raises(ConfigError, match="no such folder"):
        answer_probe([Arm("ce", "typo", missing)], QUESTIONS, GRID, tmp_path)
    answer_probe([Arm("ce", "right", lambda: toy)], QUESTIONS, GRID, tmp_path)


@pytest.mark.parametrize(("score", "p_value"), [(0.5, 1.0), (0.0, 2 / 2**6)])
def test_ties_are_no_change_and_losses_are_one_with_undisturbed_answers_at_one_half(score, p_value):
    games = [
        Game(str(n), f"ce/{c.kind}-{c.rate:g}/seed-{s}", "ce/none/seed-0", order, score, "A=B",
             "ok", None, {"judge": "by hand", "seed": s})
        for n in range(6)
        for c in GRID.interventions()
        for s in GRID.seeds(c)
        for order in (0, 1)
    ]  # fmt: skip
    dose = Dose(asked=1, displaced=1, impossible=0, lost=0, committed=9)
    doses = {("ce", condition): dose for condition in GRID.interventions()}
    found = figures(games, doses, {"ce": "m"})
    assert {row.value for row in found.win_rates} == {score}
    assert [row.p_value for row in found.win_rates] == pytest.approx([p_value] * 4)
    doses_tried, points = [0.0, 0.1, 0.5], [0.5, score, score]
    slope = statistics.linear_regression(doses_tried, points).slope
    assert [trend.value for trend in found.trends] == pytest.approx([slope] * 2)
