"""Command lines nobody would type: any flags of a command with any values, run in this process."""

import argparse
import contextlib
import io
import json
import time
from pathlib import Path

from hostile_inputs import LONGEST_SECONDS, Outcome, time_limit
from hostile_kinds import GAME, RECIPE, as_jsonl, model_folder, result_kinds
from hypothesis import strategies as st

from slackdlm.cli import _parser, main

COMMANDS = ("generate", "answer", "judge", "compare", "report", "train")
WORDS = (
    "", "0", "1", "2", "8", "-1", "0.5", "1.5", "nan", "inf", "-inf", "1e5", "x", "on", "\x1b[31m", "\u202e", "10**9",
    "-", "--", "a=b", "training.steps=2", "sampler.steps=2", "=", "99999999999999999999", "http://", "pairs", "all",
)  # fmt: skip


def write_inputs(folder: Path) -> dict[str, str]:
    """A valid file of everything the commands read, by name."""
    model = model_folder("model/config.json")(folder).parent
    rows = [{"question": f"What is {n} plus 1?", "answer": f"{n + 1}"} for n in range(80)]
    (folder / "train.jsonl").write_bytes(as_jsonl(rows))
    (folder / "questions.jsonl").write_bytes(as_jsonl([{"id": "q", "prompt": "one"}]))
    games = [GAME | {"question_id": f"q{n}", "score": n % 2 / 1} for n in range(6)]
    (folder / "games.jsonl").write_bytes(as_jsonl(games))
    (folder / "results.json").write_bytes(result_kinds()[0].content)
    (folder / "recipe.yaml").write_bytes(
        RECIPE.replace(b"train.jsonl", json.dumps(str(folder / "train.jsonl")).encode())
    )
    names = ("train.jsonl", "questions.jsonl", "games.jsonl", "results.json", "recipe.yaml", "none")
    return {name: str(folder / name) for name in names} | {
        "model": str(model),
        "adapter": str(model.parent / "adapter"),
        "folder": str(folder),
        "output": str(folder / "out" / "file.jsonl"),
    }


@st.composite
def commands(draw: st.DrawFn, inputs: dict[str, str]) -> list[str]:
    """One command with what it needs, and up to four of its flags with any values."""
    name = draw(st.sampled_from(COMMANDS))
    needed = {
        "generate": [inputs["model"], "--prompt", "hello", "--canvas-length", "8"],
        "answer": [inputs["model"], "--questions", inputs["questions.jsonl"], "--output", inputs["output"],
                   "--gen-length", "8"],
        "judge": ["--benchmark", "pairs", "--questions", inputs["questions.jsonl"], "--answers",
                  inputs["games.jsonl"], "--judge", "toy", "--output", inputs["output"]],
        "compare": [inputs["games.jsonl"], "--resamples", "50"],
        "report": [inputs["none"]],
        "train": [inputs["recipe.yaml"], draw(st.sampled_from(("--plan", "--show=1")))],
    }[name]  # fmt: skip
    words = [name, *needed]
    value = st.sampled_from(WORDS) | st.sampled_from(sorted(inputs.values())) | st.text(max_size=5)
    for action in draw(st.lists(st.sampled_from(FLAGS[name]), max_size=4)):
        words.append(action.option_strings[-1])
        if action.nargs != 0:
            choices = st.sampled_from(sorted(map(str, action.choices or ("1",))))
            many = action.nargs if isinstance(action.nargs, int) else 1
            words += [draw(value | choices).replace("\x00", "") for _ in range(many)]
    if draw(st.integers(0, 3)) == 0:
        place = draw(st.integers(1, len(words) - 1))
        words[place] = draw(value).replace("\x00", "")
    return words


def _flags(command: str) -> list[argparse.Action]:
    groups = [a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction)]
    actions = groups[0].choices[command]._actions
    return [a for a in actions if a.option_strings and "--help" not in a.option_strings]


FLAGS = {name: _flags(name) for name in COMMANDS}


def attempt_command(words: list[str]) -> Outcome:
    """Run it: it succeeds, argparse refuses it, or it ends with one short message and code 2.

    Raises:
        AssertionError: If it ends any other way.
    """
    out, err = io.StringIO(), io.StringIO()
    started = time.perf_counter()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        time_limit(LONGEST_SECONDS),
    ):
        try:
            code = main(words)
        except SystemExit as left:
            code = left.code
    shown = err.getvalue()
    assert code in (0, 2), (code, words)
    assert "Traceback" not in shown + out.getvalue(), words
    assert "\x1b" not in shown, words
    if code == 2:
        assert shown.count("error: ") >= 1, (words, shown)
        message = shown[shown.index("error: ") :]
        assert len(message) < 900, (words, message)
    return Outcome(code == 2, shown, time.perf_counter() - started)
