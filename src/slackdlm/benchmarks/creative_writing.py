"""Creative-Writing-Bench v3: 32 prompts in 3 iterations, each piece graded 0 to 20 on 22 criteria.

It has no licence, so nothing of it is here: prompts, criteria and judge prompt come from the user's copy. The unit of
analysis is the prompt; its iterations are repeats (`Grade.turn`). A piece that could not be generated stays in the
count as ``failed``: the benchmark leaves it out of the mean, which flatters models that write little.

References:
    EQ-bench/creative-writing-bench at e7ab0091.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from slackdlm.benchmarks.templates import filled
from slackdlm.errors import DataError
from slackdlm.jsonl import read_text
from slackdlm.judgments import Grade, GradeStatus, Messages
from slackdlm.records import Question

LOWEST, HIGHEST = 0.0, 20.0

PLACES = (
    "writing_prompt", "test_model_response", "creative_writing_criteria", "lower_is_better_criteria",
)  # fmt: skip
"""What is filled into the judge prompt."""


PUBLISHED = "published_piece"
"""Where a grade read from a run file keeps `published_piece`."""


class Criteria(NamedTuple):
    """What a piece is graded on."""

    names: tuple[str, ...]
    """All criteria."""
    negative: tuple[str, ...]
    """Those where lower is better; their grade counts as 20 minus it."""


class Rubric(NamedTuple):
    """What the judge is told."""

    prompt: str
    """With the places `PLACES` to fill in."""
    criteria: Criteria

    def sha256(self) -> str:
        """Hash of all of it: part of a judgment's identity."""
        return hashlib.sha256(json.dumps(self).encode()).hexdigest()


def read_criteria(folder: Path) -> Criteria:
    """Criteria of a copy's ``data`` folder.

    Raises:
        DataError: If a file is missing or a negative criterion is no criterion.
    """
    names, negative = (
        tuple(
            line.strip()
            for line in read_text(folder / name, what="criteria").split("\n")
            if line.strip()
        )
        for name in ("creative_writing_criteria.txt", "negative_criteria.txt")
    )
    unknown = [name for name in negative if name not in names]
    if unknown or not names:
        raise DataError(f"{folder}: negative criteria that are no criteria: {unknown!a}")
    return Criteria(names, negative)


def read_rubric(prompt_file: Path) -> Rubric:
    """Judge prompt of the user's copy and, from the files beside it, the criteria.

    Raises:
        DataError: If a file is missing or the prompt lacks a place to fill in.
    """
    prompt = read_text(prompt_file, what="Creative-Writing-Bench's judge prompt")
    missing = [f"{{{name}}}" for name in PLACES if f"{{{name}}}" not in prompt]
    if missing:
        raise DataError(
            f"{prompt_file}: expected Creative-Writing-Bench's creative_writing_judging_prompt.txt, but there is no "
            f"{', '.join(missing)} in it"
        )
    return Rubric(prompt, read_criteria(prompt_file.parent))


def judge_messages(question: Question, answer: str, rubric: Rubric) -> Messages:
    """What the judge is sent.

    As published the judge sees the prompt with its seed's placeholder, not the seed. Unlike there a short or empty
    piece is judged too.
    """
    values = {
        "writing_prompt": str(question.extra.get("base_prompt", question.prompt)),
        "test_model_response": answer,
        "creative_writing_criteria": "\n".join(f"- {name}" for name in rubric.criteria.names),
        "lower_is_better_criteria": ", ".join(rubric.criteria.negative),
    }
    return ({"role": "user", "content": filled(rubric.prompt, values)},)


def parse_verdict(text: str, criteria: Criteria) -> dict[str, float]:
    """The grade of each known criterion in a reply, the last where several are given; as said, unchecked.

    A line counts only if it begins with a criterion's name and a colon. The benchmark takes any "words: number up
    to 20" for a criterion, prose included.
    """
    body = text.rsplit("[Scores]", 1)[-1]
    known = {name.casefold(): name for name in criteria.names}
    found: dict[str, float] = {}
    for line in body.split("\n"):
        name, colon, value = line[:400].strip(" *-#\t\r").partition(":")
        number = re.match(
            r"[\s*\[]*(?:score\s+)?[\s\[]*(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)", value, re.I
        )
        if colon and number and name.strip(" *").casefold() in known:
            found[known[name.strip(" *").casefold()]] = float(number[1])
    return found


def piece_score(scores: Mapping[str, Any], criteria: Criteria) -> tuple[float | None, GradeStatus]:
    """Mean over the known criteria that are graded within 0 to 20, negative ones inverted, and its status."""
    values: list[float] = []
    status: GradeStatus = "ok"
    for name in criteria.names:
        value = scores.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if not LOWEST <= value <= HIGHEST:
            status = "out_of_range"
        else:
            values.append(HIGHEST - value if name in criteria.negative else float(value))
    return (float(np.mean(values)), status) if values else (None, "unparsable")


def published_piece(
    task: Mapping[str, Any], block: Mapping[str, Any], criteria: Criteria
) -> float | None:
    """The benchmark's own grade of a piece, all that its judge named being criteria; None where it leaves it out."""
    told = block.get("judge_scores")
    if task.get("status") not in ("completed", "judged") or not isinstance(told, dict):
        return None
    values = [
        HIGHEST - value if name in criteria.negative else float(value)
        for name, value in cast("dict[str, Any]", told).items()
        if isinstance(value, int | float)
    ]
    kept = [value for value in values if value <= HIGHEST]
    return sum(kept) / len(kept) if kept else None


def published_score(grades: Sequence[Grade]) -> float | None:
    """The benchmark's ``eqbench_creative_score``, 0 to 100, of one run; None unless all are from a run file."""
    if any(PUBLISHED not in grade.extra for grade in grades):
        return None
    pieces = [one for grade in grades if (one := grade.extra[PUBLISHED]) is not None]
    return round(5 * sum(pieces) / len(pieces), 2) if pieces else None


def parse_grade(text: str, criteria: Criteria) -> float | None:
    """`piece_score` of a reply: the mean over its criteria, those left out being left out of it; None without any."""
    return piece_score(parse_verdict(text, criteria), criteria)[0]
