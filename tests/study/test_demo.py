"""The demo's whole path at its smallest, in real worker processes."""

import json
from dataclasses import replace

import pytest

from slackdlm.errors import ConfigError
from slackdlm.study.demo_plan import QUICK


@pytest.fixture(scope="module")
def plan():
    training = replace(
        QUICK.base, steps=2, batch_size=4, eval_every=2, eval_samples=4, save_every=0
    )
    return replace(
        QUICK,
        num_train=40,
        num_questions=4,
        d_model=16,
        n_layers=1,
        base=training,
        arm=training,
        steps=(6, 12),
        rates=(0.2,),
    )


@pytest.fixture(scope="module")
def folder(plan, tmp_path_factory):
    from slackdlm.study.demo import run_demo

    output = tmp_path_factory.mktemp("demo")
    report = run_demo(plan, output=output, quick=True)
    assert report == output / "report.html"
    return output


def test_every_arm_answers_every_question_under_every_condition(folder, plan):
    for arm, runs in (("base", 4), ("ce", 8), ("ce_slack", 8), ("slack_ctc", 8)):
        files = sorted((folder / "answers" / f"seed-0-{arm}").glob("*.jsonl"))
        rows = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        grades = (folder / "judgments" / f"seed-0-{arm}.jsonl").read_text().splitlines()
        assert len(grades) == len(rows)
        # 2 temperatures x 2 step counts; probed arms also shift and substitute, at each temperature.
        assert len(rows) == runs * plan.num_questions
        assert {len(row["canvas"]) for row in rows} == {plan.canvas_length}


def test_results_hold_every_section_and_no_number_that_is_not_one(folder):
    text = (folder / "results.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    results = json.loads(text)
    assert {row["arm"] for row in results["quality"]} == {"base", "ce", "ce_slack", "slack_ctc"}
    assert all(m["num_total"] == 4 for row in results["quality"] for m in row["metrics"].values())
    assert {row["against"] for row in results["win_rates"]} == {"base", "ce", "self"}
    assert any("mean nothing" in text for text in results["warnings"])
    assert (folder / "report.html").stat().st_size > 10_000


def test_matched_arms_see_the_same_samples_masks_and_steps(folder):
    records = {
        arm: json.loads((folder / "seed-0" / arm / "run.json").read_text())
        for arm in ("ce", "ce_slack", "slack_ctc")
    }
    settings = [record["recipe"]["training"] for record in records.values()]
    assert settings[0] == settings[1] == settings[2]
    hashes = {record["samples"]["train_sha256"] for record in records.values()}
    assert len(hashes) == 1


def test_running_again_finishes_at_once_with_the_same_figures(folder, plan):
    from slackdlm.study.demo import run_demo

    before = json.loads((folder / "results.json").read_text())
    files = sorted((folder / "answers").rglob("*.jsonl"))
    answers = [file.stat().st_mtime_ns for file in files]
    run_demo(plan, output=folder, quick=True)
    after = json.loads((folder / "results.json").read_text())
    assert [file.stat().st_mtime_ns for file in files] == answers
    for section in ("quality", "win_rates", "source", "replays", "samples"):
        assert after[section] == before[section]


def test_samples_show_the_canvas_beside_the_text(folder, plan):
    samples = json.loads((folder / "results.json").read_text())["samples"]
    assert {sample["arm"] for sample in samples} == {
        "source", "base", "ce", "ce_slack", "slack_ctc"
    }  # fmt: skip
    for sample in samples:
        cells = sample["canvas"].split()
        assert len(cells) == (0 if sample["arm"] == "source" else plan.canvas_length)
        assert set(sample["text"].split()) <= set(cells) or sample["arm"] == "source"


def test_finished_stages_add_no_seconds_when_the_demo_runs_again(folder, plan):
    from slackdlm.study.demo import run_demo

    last = "judge, statistics, report"
    before = json.loads((folder / "seconds.json").read_text())
    # As if the last stage had taken 11 days: done again, its time is replaced and not added to.
    (folder / "seconds.json").write_text(json.dumps({**before, last: 1e6}))
    run_demo(plan, output=folder, quick=True)
    after = json.loads((folder / "seconds.json").read_text())
    assert before.keys() == after.keys()
    assert {k: v for k, v in after.items() if k != last} == {
        k: v for k, v in before.items() if k != last
    }
    assert after[last] < 1e6


def test_a_folder_of_another_plan_is_refused(folder, plan):
    from slackdlm.study.demo import run_demo

    with pytest.raises(ConfigError, match="holds a demo of another plan"):
        run_demo(replace(plan, num_questions=5), output=folder)
