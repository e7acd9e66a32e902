"""Tables for people with 80 columns."""

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from slackdlm.terminal import printable, table

PROBE = ("arm", "kind", "rate", "win rate", "95 % interval", "p", "adjusted p", "done", "n")
ROW = ("slack", "substitute", "20 %", "0.531", "[0.281, 0.781]", "< 0.001", "1.000",
       "82 of 336 (24.4 %)", "16 / 16")  # fmt: skip


def printed(headings, rows, *, width: int, words=()) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table("title", headings, rows, words=words, width=width))
    return console.file.getvalue().splitlines()


def test_a_wide_table_breaks_no_word_and_no_figure_at_80_columns():
    lines = printed(PROBE, [ROW], width=80, words=("arm", "kind"))
    assert max(map(len, lines)) <= 80
    shown = "\n".join(lines)
    assert all(word in shown for heading in PROBE for word in heading.split())
    for text in ("substitute", "20 %", "[0.281,", "0.781]", "< 0.001", "(24.4 %)", "16 / 16"):
        assert text in shown


words_of = st.lists(st.text("abcdefgh", min_size=1, max_size=9), min_size=1, max_size=6)


@given(st.lists(words_of, min_size=1, max_size=6), st.integers(20, 120))
def test_words_stay_whole_where_they_fit_and_lines_stay_inside(cells: list[list[str]], width: int):
    texts = [" ".join(cell) for cell in cells]
    lines = printed([str(i) for i in range(len(texts))], [texts], width=width)
    assert max(map(len, lines)) <= width
    figures = [len(text) if len(text) <= 8 else max(map(len, text.split())) for text in texts]
    if sum(figures) + 2 * len(texts) <= width:
        body = "\n".join(lines).partition("─\n")[2]
        assert sorted(body.split()) == sorted(" ".join(texts).split())


def test_nothing_in_a_table_is_markup_or_a_command_to_the_terminal():
    lines = "\n".join(printed(("[bold]a",), [("[red]b\x1b[31m",)], width=80))
    assert "[bold]a" in lines
    assert r"[red]b\x1b[31m" in lines
    assert "\x1b" not in lines


def test_figures_are_flush_right_and_words_flush_left():
    lines = printed(
        ("what", "figure"), [("x", "1"), ("long word", "1234")], width=80, words=("what",)
    )
    assert lines[3:] == ["x               1", "long word    1234"]


def test_a_table_without_rows_is_its_headings():
    lines = printed(("what", "figure"), [], width=80, words=("what",))
    assert [line.split() for line in lines[:2]] == [["title"], ["what", "figure"]]


def test_model_text_cannot_drive_the_terminal() -> None:
    shown = printable("\x1b[31mred[/bold]\x07 caf\u00e9\n\u202eevil 1\u00a0000 km").plain
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
    assert "[/bold]" in shown
    assert "café\n" in shown
    assert "1\u00a0000 km" in shown
