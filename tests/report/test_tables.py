import pytest

from slackdlm.errors import DataError
from slackdlm.report.results import checked, plain_rows, probed_panels, scored_range
from slackdlm.report.tables import (
    columns_with_values,
    count,
    dose_rows,
    interval,
    markdown_table,
    number,
    p_text,
    percent,
    plain_table,
    realised,
    source_row,
    win_rows,
)


def test_missing_prints_as_a_dash_and_zero_as_zero():
    assert [show(None) for show in (number, count, percent, p_text)] == ["–"] * 4
    assert (number(0.0), count(0), percent(0.0)) == ("0.000", "0", "0 %")


def test_numbers_keep_the_digits_that_matter():
    assert [number(x) for x in (0.1234, -2.345, 12.34, 12345.6)] == [
        "0.123",
        "−2.35",
        "12.3",
        "12\u2009346",
    ]
    assert percent(0.015) == "1.5 %"
    assert (p_text(0.0001), p_text(0.0314)) == ("< 0.001", "0.031")


def test_an_interval_needs_both_ends():
    assert interval({"low": 0.1, "high": 0.25}) == "[0.100, 0.250]"
    assert interval({"low": None, "high": 0.25}) == ""


def test_the_main_table_holds_every_plain_cell_once(results):
    groups = plain_table(results)
    assert [group.temperature for group in groups] == [0.0, 1.0]
    assert [(row.steps, row.arm) for row in groups[0].rows] == [
        (8, "base"),
        (8, "slack_ctc"),
        (16, "base"),
        (16, "slack_ctc"),
    ]
    entry = groups[0].rows[0].entries[0]
    assert (entry.value, entry.interval, entry.scored) == ("0.580", "[0.560, 0.600]", "64 / 64")
    assert entry.place == pytest.approx((56.0, 58.0, 60.0))


def test_a_metric_that_nobody_scored_gets_no_column(results):
    assert "grammatical" not in columns_with_values(results)
    for row in results["quality"]:
        row["metrics"]["words"]["value"] = None
    assert "words" not in columns_with_values(results)


def test_a_missing_cell_is_a_dash_with_its_counts(results):
    row = results["quality"][0]
    row["metrics"]["quality"] = dict.fromkeys(("value", "low", "high")) | {
        "num_scored": 0,
        "num_total": 64,
    }
    del row["metrics"]["words"]
    quality, _, words, *_ = plain_table(results)[0].rows[0].entries
    assert (quality.value, quality.interval, quality.scored, quality.place) == (
        "–",
        "",
        "0 / 64",
        None,
    )
    assert (words.value, words.scored) == ("–", "")


def test_the_source_texts_stand_below_with_dashes_where_unmeasured(results, empty):
    row = source_row(results)
    values = dict(zip(columns_with_values(results), row.entries, strict=True))
    assert values["words"].value == "27.0"
    assert values["quality"].value == "–"
    assert source_row(empty) is None


def test_win_rates_are_sorted_into_three_tables(results):
    rivals = win_rows(results, against_self=False, intervened=False)
    assert [(row["label"], row["against"]) for row in rivals] == [("slack-CTC", "pre-trained")]
    assert rivals[0]["is_clear"]
    probes = win_rows(results, against_self=True, intervened=True)
    assert len(probes) == 8
    assert not probes[0]["is_clear"]
    assert win_rows(results, against_self=False, intervened=True) == []


def test_a_win_rate_without_a_p_value_is_never_clear(results):
    results["win_rates"][0]["p_adjusted"] = None
    (row,) = win_rows(results, against_self=False, intervened=False)
    assert (row["p_adjusted"], row["is_clear"]) == ("–", False)


def test_the_realised_dose_is_displaced_over_committed(results):
    rows = dose_rows(results)
    assert len(rows) == 8
    assert (rows[0]["rate"], rows[0]["share"], rows[0]["lost"]) == ("1 %", "10 %", "1")


def test_what_is_dropped_was_decided_on_and_is_not_committed(results):
    results["quality"][8]["kind"] = "drop"
    dose = results["quality"][8]["dose"]
    dose |= {"displaced": 10, "committed": 90}
    assert dose_rows(results)[0]["share"] == "10 %"
    assert realised("drop", dose) == "10 of 100 (10 %)"
    assert realised("shift", dose) == "10 of 90 (11.1 %)"


def test_a_dose_without_commits_has_no_share(results):
    results["quality"][8]["dose"]["committed"] = 0
    assert dose_rows(results)[0]["share"] == "–"


def test_markdown_rows_keep_their_columns_under_hostile_labels(results):
    results["arms"][0]["label"] = "a|b\n<script>*x*"
    lines = markdown_table(results).splitlines()
    assert len(lines) == 2 + 8
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}
    assert r"a\|b \<script\>\*x\*" in lines[2]


def test_panels_are_the_set_ups_that_were_probed(results):
    assert probed_panels(results) == [(0.0, 8)]
    assert len(plain_rows(results, 1.0)) == 4


def test_the_number_of_questions_is_said_as_a_range():
    rows = [{"value": 1.0, "num_scored": n} for n in (60, 64)]
    assert scored_range(rows) == "n = 60 to 64"
    assert scored_range(rows[:1]) == "n = 60"
    assert scored_range([{"value": None, "num_scored": 0}]) == "n = 0"


def test_text_is_made_drawable_and_numbers_finite(results):
    results["title"] = "a\0b\ud800c\nd"
    results["quality"][0]["metrics"]["words"]["value"] = float("nan")
    clean = checked(results)
    assert clean["title"] == "a\ufffdb\ufffdc\nd"
    assert clean["quality"][0]["metrics"]["words"]["value"] is None


def test_a_missing_section_or_key_is_named(results):
    del results["win_rates"][2]["p_adjusted"]
    with pytest.raises(DataError, match=r"results: win_rates\[2\].p_adjusted is missing"):
        checked(results)
    results["win_rates"] = None
    with pytest.raises(DataError, match="results: win_rates: expected a list, got nothing"):
        checked(results)
    del results["win_rates"]
    with pytest.raises(DataError, match="results: win_rates is missing"):
        checked(results)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("quality", 0, "steps"), "8", r"quality\[0\].steps: expected a whole number of at least 0, got '8'"),
        (("quality", 0, "rate"), 1.5, r"quality\[0\].rate: expected a number from 0 to 1, got 1.5"),
        (("win_rates", 0, "value"), -0.1, r"win_rates\[0\].value: expected a number from 0 to 1"),
        (("quality", 0, "metrics", "words"), [], r"metrics.words: expected an object, got list"),
        (("quality", 0, "metrics", "words", "value"), 1e300, "expected a number up to 1e"),
        (("replays", 0, "frames", 0, "cells", 0, "new"), 1, "expected true or false, got 1"),
        (("run", "seconds"), {"x": True}, r"run.seconds.x: expected a number of at least 0, got True"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_kind_is_named(results, path, value, message):
    place = results
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(DataError, match=message):
        checked(results)
