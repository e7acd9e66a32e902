"""Spoilt inputs and plausible ones of every kind, with a recorded seed: makes a section of docs/faults.md.

``python benchmarks/fuzz.py``; no network. A failure is printed with the bytes that caused it, and the exit code is 1.
"""

import logging
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

import plausible_inputs  # noqa: E402
import plausible_judging  # noqa: E402
import plausible_models  # noqa: E402
from hostile_commands import attempt_command, commands, write_inputs  # noqa: E402
from hostile_inputs import Outcome, attempt, spoilt  # noqa: E402
from hostile_kinds import CRITERIA, all_kinds  # noqa: E402
from hypothesis import HealthCheck, Phase, given, seed, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from slackdlm.benchmarks import (  # noqa: E402
    arena_hard,
    creative_writing,
    mt_bench,
    wildbench,
)
from slackdlm.judging.judges import strip_thoughts  # noqa: E402

SEED = 20261124
NUM_PER_KIND = {20: 150, 6: 40}
"""By the suite's sample of a kind; 260 of all others."""
NUM_REPLIES, NUM_COMMANDS, NUM_PLAUSIBLE = 1500, 300, 400
BEGIN, END = "<!-- made by benchmarks/fuzz.py -->", "<!-- end -->"
ENDINGS = ("traceback", "hang", "wrong")
DOORS = [
    door
    for module in (plausible_inputs, plausible_models, plausible_judging)
    for door in module.all_doors()
]
"""Where another tool's valid files come in."""


class Tried(NamedTuple):
    """What became of all inputs of one kind."""

    name: str
    counts: Counter[str]
    longest: float


def try_all(
    name: str, inputs: st.SearchStrategy[Any], run: Callable[[Any], str], many: int
) -> Tried:
    """Run so many inputs, ``run`` says what became of one; failures are counted and printed, and do not stop."""
    counts: Counter[str] = Counter()
    longest = 0.0

    @seed(SEED)
    @settings(
        max_examples=many,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(inputs)
    def each(value: Any) -> None:
        nonlocal longest
        started = time.process_time()
        try:
            counts[run(value)] += 1
        except AssertionError as error:
            hang = "still running" in str(error)
            counts["hang" if hang else "wrong"] += 1
            print(f"{name}: {str(error)[:400]}\n    {str(value)[:400]}", flush=True)
        except Exception as error:
            counts["traceback"] += 1
            print(
                f"{name}: {type(error).__name__}: {str(error)[:300]}\n    {str(value)[:400]}",
                flush=True,
            )
        longest = max(longest, time.process_time() - started)

    each()
    return Tried(name, counts, longest)


def ending(outcome: Outcome) -> str:
    """Of a spoilt input."""
    return "refused" if outcome.refused else "accepted"


def parse_reply(reply: str) -> str:
    """Every benchmark's parser on one judge's reply: a verdict of its scale or none."""
    text = strip_thoughts(reply)
    verdict = arena_hard.parse_verdict(text)
    ratings = [mt_bench.parse_verdict(text), wildbench.parse_verdict(text)]
    grades = creative_writing.parse_verdict(text, CRITERIA)
    fits = (
        verdict in {None, *arena_hard.FIRST_WINS}
        and all(rating is None or 0 <= rating < 1e10 for rating in ratings)
        and wildbench.parse_choice(text) in {None, *wildbench.CHOICES}
        and mt_bench.parse_winner(text) in {None, "A", "B", "C"}
        and set(grades) <= set(CRITERIA.names)
    )
    if not fits:
        raise AssertionError(f"{verdict}, {ratings}, {grades}")
    return "refused" if verdict is None and ratings == [None, None] else "accepted"


PIECES = (
    "[[A>>B]]", "[[B=A]]", "[[A=B]]", "[[10]]", "[[7.5]]", "[[-1]]", "[[C]]", "[[", "]]", '{"score": "7"}',
    '"score": 11',
    '"choice": "A+"', "<think>", "</think>", "Clear: 3", "Dull: 99", "[Scores]", "\x00", "\ud800", "9" * 400, "\n",
)  # fmt: skip
REPLIES = st.text(max_size=60) | st.lists(st.sampled_from(PIECES) | st.text(max_size=8)).map(
    "".join
)


def main() -> int:
    """Try everything, write the table; 1 if anything failed."""
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    os.environ["HF_HUB_OFFLINE"] = "1"
    tried: list[Tried] = []
    for kind in all_kinds():
        with tempfile.TemporaryDirectory() as folder:
            file = kind.place(Path(folder))
            many = NUM_PER_KIND.get(kind.sample, 260)

            def run(content: bytes, kind: Any = kind, file: Path = file) -> str:
                return ending(attempt(kind, file, content))

            tried.append(try_all(kind.name, spoilt(kind.content, kind.syntax), run, many))
            print(tried[-1], flush=True)
    tried.append(try_all("judge's reply", REPLIES, parse_reply, NUM_REPLIES))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        inputs = commands(write_inputs(Path(folder)))
        tried.append(
            try_all(
                "command line", inputs, lambda words: ending(attempt_command(words)), NUM_COMMANDS
            )
        )
        os.chdir(ROOT)
    plausible = try_doors()
    write(tried, plausible)
    return int(any(each.counts[end] for each in [*tried, *plausible] for end in ENDINGS))


def try_doors() -> list[Tried]:
    """Plausible inputs at every door: used, named or refused."""
    results: list[Tried] = []
    for door in DOORS:
        with tempfile.TemporaryDirectory() as folder:

            def run(addition: Any, door: Any = door, folder: str = folder) -> str:
                return plausible_inputs.check(door, addition, Path(folder))

            results.append(try_all(door.name, door.inputs, run, NUM_PLAUSIBLE))
            print(results[-1], flush=True)
    return results


def write(tried: list[Tried], plausible: list[Tried]) -> None:
    """The section of docs/faults.md, in the place of the old one."""
    lines = [
        BEGIN,
        "",
        "## Spoilt inputs",
        "",
        f"Made by `python benchmarks/fuzz.py` with seed {SEED}: valid inputs of every kind with one value",
        "changed, removed, renamed or given twice, bytes damaged, or another document in their place.",
        "*Refused*: one message of one line, of at most 400 characters, that names the file. *Accepted*:",
        "and an independent check holds: untouched lines give what they gave, scores fit their status and",
        "scale, a recipe holds what its file says, logits are those of the valid folder. *Wrong* failed",
        "either check. A judge's reply is *refused* if it has no verdict and no rating.",
        "",
        *_table(tried, ("refused", "accepted")),
        "",
        "## Plausible inputs",
        "",
        "Another tool's valid files with one thing more: a field, a file, a row that moved. *Used*: what was",
        "added is found in what was trained on, asked or computed, and that is right by other means (PEFT's",
        "logits, `apply_chat_template`). *Named*: a line says that it is not used. *Refused*: one message.",
        "*Wrong*: none of these.",
        "",
        *_table(plausible, ("used", "named", "refused")),
    ]
    section = "\n".join([*lines, "", END]) + "\n"
    page = ROOT / "docs" / "faults.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    page.write_text(
        f"{before.rstrip()}\n\n{section}{rest.partition(END)[2].lstrip()}", encoding="utf-8"
    )
    print(section)


def _table(tried: list[Tried], outcomes: tuple[str, ...]) -> list[str]:
    total = sum((each.counts for each in tried), Counter[str]())
    rows = [*tried, Tried("**all**", total, max(each.longest for each in tried))]
    lines = [
        f"| input | tried | {' | '.join(outcomes)} | tracebacks | hangs | wrong | longest, CPU seconds |",
        "|---" * (len(outcomes) + 6) + "|",
    ]
    for each in rows:
        figures = [each.counts[key] for key in (*outcomes, *ENDINGS)]
        cells = " | ".join(map(str, [each.counts.total(), *figures]))
        lines.append(f"| {each.name} | {cells} | {each.longest:.1f} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
