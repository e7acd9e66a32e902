import io
import json
from dataclasses import replace

import pytest
from rich.console import Console, Group
from rich.text import Text

from slackdlm.judgments import Game, Grade
from slackdlm.report.comparison import (
    cells,
    judge_sentences,
    write_comparison,
)
from slackdlm.report.console import comparison_tables, power_table
from slackdlm.study.compare import compare
from slackdlm.study.comparison import Settings

EVIL = "m\x1b[31m<script>alert(1)</script>|`x` $y$_{2}\\%&~^\ud800"


def judged(system=EVIL):
    found = []
    for number in range(40):
        for order in (0, 1):
            score = None if number == 0 else float(number % 4 > 0)
            status = "unparsable" if score is None else "ok"
            identity = {"benchmark": "arena-hard", "judge": EVIL}
            found.append(
                Game(f"q{number}", system, "base", order, score, None, status, EVIL, identity)
            )
    identity = {"benchmark": "mt-bench", "judge": "j"}
    for name, shift in ((system, 0.0), ("other", 1.0)):
        found += [
            Grade(f"q{n}", name, 1, 5.0 + n % 3 + shift, "ok", None, identity) for n in range(9)
        ]
    return found


@pytest.fixture(scope="module")
def comparison():
    return compare(judged(), settings=Settings(num_resamples=300))


def test_the_files_hold_every_line_and_no_live_markup(comparison, tmp_path):
    page = write_comparison(comparison, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "\x1b" not in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    markdown = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "<script" not in markdown.replace("\\<", "")
    assert "\x1b" not in markdown
    rows = [line for line in markdown.split("\n") if line.startswith("| ")]
    assert all(row.replace("\\|", "").count("|") == 9 for row in rows)
    told = json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8"))
    assert told["lines"][0]["estimate"]["num_total"] == 40
    assert len(told["lines"]) == len(comparison.lines)


def test_the_same_comparison_gives_the_same_bytes(comparison, tmp_path):
    write_comparison(comparison, tmp_path / "a")
    write_comparison(comparison, tmp_path / "b")
    for name in ("comparison.html", "comparison.md", "comparison.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_cells_show_units_signs_and_what_is_missing(comparison):
    rate, ours, other, gap = (cells(line) for line in comparison.lines)
    assert rate.value == "76.9 %"
    assert rate.scored == "39 / 40"
    assert rate.bounds == "75.0 / 77.5"
    assert (ours.value, ours.p_value, ours.bounds) == ("6.00", "–", "–")
    assert other.value == "7.00"
    assert gap.value == "−1.00"
    assert gap.is_clear
    line = comparison.lines[0]
    empty = replace(line, estimate=replace(line.estimate, value=None, low=None, high=None))
    assert (cells(empty).value, cells(empty).interval) == ("–", "")


def printed(*shown) -> str:
    console = Console(file=io.StringIO(), width=80)
    for one in shown:
        console.print(one)
    return console.file.getvalue()


def test_nothing_is_read_as_markup_in_the_terminal(comparison):
    shown = comparison_tables(comparison, width=80)
    assert len([one for one in shown if isinstance(one, Group)]) == 2
    assert len([one for one in shown if isinstance(one, Text)]) > len(comparison.judges)
    text = printed(*shown)
    assert "<script>" in text
    assert "\x1b" not in text


def test_the_power_table_says_what_smaller_effects_need():
    lines = printed(power_table([("planned", 500, 0.4)], alpha=0.05, width=80))
    row = lines.splitlines()[-1]
    what, questions, spread, effect, half, fifth = row.replace("\u2009", "").split()
    assert (what, questions, spread, effect) == ("planned", "500", "0.400", "0.050")
    assert 1990 <= int(half) <= 2000
    assert 12_400 <= int(fifth) <= 12_600


def test_the_power_table_says_where_no_spread_is_known():
    rows = [("planned", 500, 0.4), ("same", 500, 0.0), ("one", 1, None)]
    *_, planned, same, one, note = printed(power_table(rows, alpha=0.05, width=110)).splitlines()
    assert "–" not in planned
    assert same.split() == ["same", "500", "0.000", "0.000", "–", "–"]
    assert one.split() == ["one", "1", "–", "–", "–", "–"]
    assert note.startswith("• no spread")
    assert "no spread" not in printed(power_table(rows[:2], alpha=0.05, width=110))


def test_a_share_that_no_question_tells_is_unknown_and_not_nothing(tmp_path):
    games = [game for game in judged("a") if isinstance(game, Game)]
    lengths = {(game.question_id, system): 7 for game in games for system in ("a", "base")}
    found = compare(games, settings=Settings(num_resamples=300), lengths=lengths)
    (report,) = found.judges
    said = "The longer answer gets an unknown share (n = 0 / 40); longer may also be better."
    assert said in judge_sentences(report)
    page = write_comparison(found, tmp_path).read_text(encoding="utf-8")
    assert "two-sided, adjusted over the family of 1 test by Benjamini-Hochberg" in page
