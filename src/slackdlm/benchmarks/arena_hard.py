"""Arena-Hard-Auto v2.0 and v0.1: two games per question against a baseline, five verdicts.

In the files, game 1 shows the baseline first and game 2 the model. Any model can be the baseline here.

References:
    Li et al., 2024 (arXiv 2406.11939); lmarena/arena-hard-auto at 196f6b82.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from slackdlm.benchmarks.templates import template
from slackdlm.errors import DataError
from slackdlm.jsonl import show
from slackdlm.judgments import Game, Messages
from slackdlm.records import Question

FIRST_WINS: Final[dict[str, float]] = {
    "A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0,
    "B<<A": 1.0, "B<A": 1.0, "B=A": 0.5, "A<B": 0.0, "A<<B": 0.0,
}  # fmt: skip
"""Every verdict the benchmark knows -> points of the answer shown first."""

VERDICTS: Final = tuple(FIRST_WINS)[:5]
"""Those that v0.1's script counts."""
_ANNOUNCED: Final = re.compile(r"\bVERDICT\b[^\[\]\n]{0,120}\[\[([AB<>=]+)\]\]")

USER_PROMPT: Final = (
    "<|User Prompt|>\n{}\n\n<|The Start of Assistant A's Answer|>\n{}\n<|The End of Assistant A's Answer|>\n\n"
    "<|The Start of Assistant B's Answer|>\n{}\n<|The End of Assistant B's Answer|>"
)


def judge_messages(question: Question, first: str, second: str) -> Messages:
    """What the judge is sent: the system prompt of the question's category, then both answers."""
    settings = _settings().get(question.category or "")
    if settings is None:
        raise DataError(
            f"question {show(question.id)}: Arena-Hard has no judge prompt for category "
            f"{show(question.category)}; known: {', '.join(_settings())}. Judge questions of your own with "
            "--benchmark pairs"
        )
    return (
        {"role": "system", "content": settings["system_prompt"]},
        {"role": "user", "content": USER_PROMPT.format(question.prompt, first, second)},
    )


def parse_verdict(text: str) -> str | None:
    """The last verdict of a reply, such as ``A>>B``, about the answers as shown; None if there is none.

    As published: double brackets first, single brackets where there are none. Unlike there, a label outside
    `FIRST_WINS` counts as no verdict instead of breaking the table later, and so does a last label that contradicts
    one announced as the verdict and is not itself: a list of the options behind it is no verdict.
    """
    text = text.upper()
    double = re.findall(r"\[\[([AB<>=]+)\]\]", text)
    if double:
        announced = _ANNOUNCED.findall(text)
        contradicted = bool(announced) and announced[-1] != double[-1]
        return double[-1] if double[-1] in FIRST_WINS and not contradicted else None
    single = [label for label in re.findall(r"\[([AB<>=]+)\]", text) if label in FIRST_WINS]
    return single[-1] if single else None


def score_of(verdict: str, order: int) -> float:
    """Points of system ``a`` for a verdict about the answers as shown."""
    first = FIRST_WINS[verdict]
    return first if order == 0 else 1.0 - first


def weight_of(game: Game) -> int:
    """Rows that a scored game makes in Arena-Hard's mean: three for a strong verdict, else one."""
    strong = game.verdict is not None and (">>" in game.verdict or "<<" in game.verdict)
    return 3 if strong else 1


def published_v01(games: Sequence[Game]) -> float | None:
    """v0.1's score, the maximum of its Bradley-Terry likelihood: the mean over rows, lone games included.

    As there a verdict written from the other side, such as ``B<A``, does not count.
    """
    counted = [game for game in games if game.score is not None and game.verdict in VERDICTS]
    weights = [weight_of(game) for game in counted]
    scores = [game.score or 0.0 for game in counted]
    return float(np.average(scores, weights=weights)) if scores else None


def style_metadata(text: str, *, num_tokens: int) -> dict[str, Any]:
    """Length and Markdown counts of an answer, as Arena-Hard's answer files hold them.

    Counted as its ``add_markdown_info.py`` does, which first removes what stands inside fenced code, wherever the
    same text occurs again too. ``num_tokens`` there is by the GPT-4o tokenizer.
    """
    for block in re.findall(r"```([^`]*)```", text):
        text = text.replace(block, "")
    return {
        "token_len": num_tokens,
        "header_count": {
            f"h{n}": len(re.findall(rf"^#{{{n}}}\s", text, re.M)) for n in range(1, 7)
        },
        "list_count": {
            # Only the line's own blanks: the original's \s* over blank lines counts the same, in quadratic time.
            "ordered": len(re.findall(r"^[^\S\n]*\d+\.\s", text, re.M)),
            "unordered": len(re.findall(r"^[^\S\n]*[-*+]\s", text, re.M)),
        },
        "bold_count": {
            "**": len(re.findall(r"\*\*[^*\n]+\*\*", text)),
            "__": len(re.findall(r"__[^_\n]+__", text)),
        },
    }


def prompts_sha256() -> str:
    """Hash of every judge prompt of this file: part of a judgment's identity."""
    text = json.dumps([_settings(), USER_PROMPT], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _settings() -> dict[str, dict[str, str]]:
    return json.loads(template("arena_hard.json"))
