import pytest

from slackdlm.report.tables import (
    baseline_rows,
    baseline_table,
    columns_with_values,
    dose_rows,
    markdown,
    probed_panels,
    realised,
    scored_range,
    source_row,
    win_tables,
)
from slackdlm.report.text import count, interval, number, p_text, percent
from slackdlm.statistics import Estimate
from slackdlm.study.result import Dose, Figure, Result


def made(results) -> Result:
    return Result.model_validate(results)


def test_numbers_keep_the_digits_that_matter_and_missing_is_a_dash():
    assert [show(None) for show in (number, count, percent, p_text)] == ["–"] * 4
    assert (number(0.0), count(0), percent(0.0)) == ("0.000", "0", "0 %")
    shown = [number(x) for x in (0.1234, -2.345, 12.34, 12345.6)]
    assert shown == ["0.123", "−2.35", "12.3", "12\u2009346"]
    assert (percent(0.015), p_text(0.0001), p_text(0.0314)) == ("1.5 %", "< 0.001", "0.031")
    assert interval(Estimate(0.2, 0.1, 0.25, 2, 2)) == "[0.100, 0.250]"
    assert interval(Estimate(0.2, 0.1, 0.25, 2, 2), 1) == "[0.1, 0.2]"
    assert interval(Estimate(0.2, None, 0.25, 2, 2)) == ""


def test_the_main_table_holds_every_baseline_cell_once(results):
    groups = baseline_table(made(results))
    assert [group.temperature for group in groups] == [0.0, 1.0]
    rows = [(row.steps, row.arm) for row in groups[0].rows]
    assert rows == [(8, "base"), (8, "slack_ctc"), (16, "base"), (16, "slack_ctc")]
    entry = groups[0].rows[0].entries[0]
    assert (entry.value, entry.interval, entry.scored) == ("0.580", "[0.560, 0.600]", "64 / 64")
    assert entry.span == pytest.approx((56.0, 58.0, 60.0))
    assert probed_panels(made(results)) == [(0.0, 8)]
    assert len(baseline_rows(made(results), 1.0)) == 4


def test_a_metric_that_nobody_scored_gets_no_column(results):
    assert "grammatical" not in columns_with_values(made(results))
    for row in results["quality"]:
        row["metrics"]["words"]["value"] = None
    assert "words" not in columns_with_values(made(results))


def test_a_missing_cell_is_a_dash_with_its_counts(results):
    metrics = results["quality"][0]["metrics"]
    metrics["quality"] |= {"value": None, "low": None, "high": None, "num_scored": 0}
    del metrics["words"]
    quality, _, words, *_ = baseline_table(made(results))[0].rows[0].entries
    assert quality == ("–", "", "0 / 64", None)
    assert (words.value, words.scored) == ("–", "")


def test_the_source_texts_stand_below_with_dashes_where_unmeasured(results, empty):
    row, columns = source_row(made(results)), columns_with_values(made(results))
    values = {name: entry.value for name, entry in zip(columns, row.entries, strict=True)}
    assert (values["words"], values["quality"]) == ("27.0", "–")
    assert source_row(made(empty)) is None


def test_win_rates_are_sorted_into_three_tables(results):
    wins = win_tables(made(results))
    assert [(row.arm, row.against, row.is_clear) for row in wins.rivals] == [
        ("slack_ctc", "base", True)
    ]
    assert (len(wins.probes), wins.probes[0].is_clear, wins.probed_rivals) == (8, False, [])
    results["win_rates"][0]["p_adjusted"] = None
    assert not win_tables(made(results)).rivals[0].is_clear


def test_the_realised_dose_is_displaced_over_what_was_decided_on(results):
    assert len(dose_rows(made(results))) == 8
    dose = Dose(asked=10, displaced=10, impossible=0, lost=0, committed=90)
    assert realised("shift", dose) == (10, 90, pytest.approx(1 / 9))
    # What is dropped was decided on and is not committed.
    assert realised("drop", dose) == (10, 100, 0.1)
    assert realised("shift", dose.model_copy(update={"committed": 0}))[2] is None


def test_markdown_rows_keep_their_columns_under_hostile_labels(results):
    results["arms"][0]["label"] = "a|b\n<script>*x*"
    lines = [line for line in markdown(made(results)).splitlines() if line.startswith("| ")]
    assert len(lines) == 2 + 8
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}
    assert r"a\|b \<script\>\*x\*" in lines[2]


def test_the_number_of_questions_is_said_as_a_range():
    few, many = (
        Figure(value=1.0, low=None, high=None, num_scored=num, num_total=64) for num in (60, 64)
    )
    assert scored_range([many, few]) == "n = 60 to 64"
    assert scored_range([few]) == "n = 60"
    assert scored_range([few.model_copy(update={"value": None})]) == "n = 0"
