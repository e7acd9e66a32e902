"""What does a collapse map take from a text: trailing zeros, repeated words, indentation?

``python benchmarks/surface_form.py GOLD.jsonl [--column answer] [--tokenizer MODEL]`` writes gold answers on canvases,
fills them with the true path and collapses. ``mode="slack"`` must give every answer back; ``mode="graves"`` merges
adjacent repeats unless slack fell between them, and ``1000`` can come back as ``10``. No model is involved.

``python benchmarks/surface_form.py answers.jsonl --tokenizer MODEL`` looks at the canvases of a model's answers instead
(files of ``slackdlm answer``): whether collapse changed a text, and what merging repeats would have dropped.
"""

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from slackdlm.canvas import draw_num_slack, insert_slack
from slackdlm.collapse import CollapseMode, collapse
from slackdlm.models.loading import load_model
from slackdlm.models.special_tokens import SLACK, special_id
from slackdlm.models.tokenizer import train_tokenizer

Kind = Literal[
    "trailing zeros", "other digits", "indentation", "repeated words", "repeated characters"
]
Decode = Callable[[Sequence[int]], str]


class Survey(NamedTuple):
    """How many gold answers survive canvas and collapse."""

    num_answers: int
    num_changed: int
    num_finals: int
    """Answers with a final value after ``####``."""
    num_finals_changed: int
    examples: list[tuple[str, str]]
    """Up to five final values before and after."""
    dropped: Counter[Kind]
    """Content tokens that the map dropped, by kind."""


class AnswerSurface(NamedTuple):
    """One turn of an answers file."""

    system: str
    collapse: str
    """The map the answer was read with."""
    is_changed: bool
    """Whether its text is another than its canvas spells without merging anything."""
    would_change: bool
    """Whether merging repeats changes it."""
    dropped: Counter[Kind]
    """Tokens that merging repeats drops, by kind."""


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file."""
    with path.open(encoding="utf-8") as lines:
        yield from (json.loads(line) for line in lines if line.strip())


def gold_texts(path: Path, *, column: str) -> list[str]:
    """The texts of a column, or every assistant turn of ``messages`` where there is no such column."""
    texts: list[str] = []
    for row in read_rows(path):
        if "messages" in row and column not in row:
            texts += [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
        else:
            texts.append(row[column])
    return texts


def survey(
    answers: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    *,
    slack_id: int,
    mode: CollapseMode,
    slack_ratio: tuple[float, float],
    seed: int,
) -> Survey:
    """Count the answers that change between canvas and text; the ratio is a share of an answer's tokens."""
    generator = torch.Generator().manual_seed(seed)

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids)))

    changed = finals = finals_changed = 0
    examples: list[tuple[str, str]] = []
    dropped: Counter[Kind] = Counter()
    for answer in answers:
        ids = torch.tensor(tokenizer.encode(answer, add_special_tokens=False), dtype=torch.long)
        room = ceil(slack_ratio[1] * len(ids)) + 1
        num_slack = draw_num_slack(
            len(ids), slack_ratio=slack_ratio, room=room, generator=generator
        )
        canvas = insert_slack(ids, num_slack, slack_id=slack_id, generator=generator).tolist()
        text = decode(collapse(canvas, slack_id=slack_id, mode=mode))
        if mode == "graves":
            dropped += dropped_kinds(canvas, decode, slack_id=slack_id)
        before, after = final_value(answer), final_value(text)
        changed += text != answer
        finals += before is not None
        if before is not None and before != after:
            finals_changed += 1
            examples.append((before, after or ""))
    return Survey(len(answers), changed, finals, finals_changed, examples[:5], dropped)


def check_answers(
    path: Path, decode: Decode, *, slack_id: int, eos_ids: Sequence[int]
) -> list[AnswerSurface]:
    """Every turn of an ``answers.jsonl``: what collapse changed in it, and what merging would."""
    surfaces: list[AnswerSurface] = []
    for row in read_rows(path):
        canvas: list[int] = row["canvas"]
        end = next((place for place, token in enumerate(canvas) if token in eos_ids), len(canvas))
        ids = canvas[:end]
        spelled = decode(collapse(ids, slack_id=slack_id))
        merged = decode(collapse(ids, slack_id=slack_id, mode="graves"))
        surfaces.append(
            AnswerSurface(
                system=row["system"],
                collapse=row["settings"]["collapse"],
                is_changed=row["text"] != spelled,
                would_change=merged != spelled,
                dropped=dropped_kinds(ids, decode, slack_id=slack_id),
            )
        )
    return surfaces


def dropped_kinds(ids: Sequence[int], decode: Decode, *, slack_id: int) -> Counter[Kind]:
    """How many content tokens of each kind merging repeats drops from a canvas."""
    counts: Counter[Kind] = Counter()
    runs = [(token, sum(1 for _ in run)) for token, run in groupby(ids)]
    following = ""
    for token, length in reversed(runs):
        if token == slack_id:
            continue
        text = decode([token])
        if length > 1:
            counts[_kind(text, following)] += length - 1
        following = text
    return counts


def _kind(token: str, following: str) -> Kind:
    plain = token.strip()
    if plain.isdigit():
        zeros = set(plain) == {"0"} and not following[:1].isdigit()
        return "trailing zeros" if zeros else "other digits"
    if not plain:
        return "indentation"
    return "repeated words" if plain.isalpha() and len(plain) > 1 else "repeated characters"


def final_value(answer: str) -> str | None:
    """What follows the last ``####`` of a GSM8K answer, stripped; ``None`` where there is none."""
    return answer.rsplit("####", 1)[1].strip() if "####" in answer else None


def answers_tokenizer(
    answers: Sequence[str], name: str | None
) -> tuple[PreTrainedTokenizerFast, int]:
    """The tokenizer of a model and its slack id; ``None``: byte-level BPE fitted to the answers."""
    if name is not None:
        loaded = load_model(name)
        return loaded.tokenizer, loaded.slack_id
    tokenizer = train_tokenizer(answers, vocab_size=2048, kind="byte_bpe")
    slack_id = special_id(tokenizer, SLACK)
    if slack_id is None:
        raise SystemExit(f"the tokenizer has no {SLACK} token")
    return tokenizer, slack_id


def main() -> None:
    """Print one line a map, or one a system and map."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--column", default="answer")
    parser.add_argument("--tokenizer")
    parser.add_argument("--slack-ratio", type=float, nargs=2, default=(0.0, 0.5))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if "canvas" in next(read_rows(arguments.file)):
        if arguments.tokenizer is None:
            raise SystemExit("a model's answers need its tokenizer; give --tokenizer MODEL")
        loaded = load_model(arguments.tokenizer)

        def decode(ids: Sequence[int]) -> str:
            return str(loaded.tokenizer.decode(list(ids), skip_special_tokens=True))

        surfaces = check_answers(
            arguments.file, decode, slack_id=loaded.slack_id, eos_ids=loaded.eos_ids
        )
        for system, mode in dict.fromkeys((each.system, each.collapse) for each in surfaces):
            own = [each for each in surfaces if (each.system, each.collapse) == (system, mode)]
            dropped = sum((each.dropped for each in own), Counter[Kind]())
            print(
                f"{system}, {mode}: {sum(each.is_changed for each in own)} of {len(own)} changed; merging would"
                f" change {sum(each.would_change for each in own)} and drop {dict(dropped)}"
            )
        return
    answers = gold_texts(arguments.file, column=arguments.column)
    tokenizer, slack_id = answers_tokenizer(answers, arguments.tokenizer)
    modes: tuple[CollapseMode, ...] = ("slack", "graves")
    for mode in modes:
        result = survey(
            answers,
            tokenizer,
            slack_id=slack_id,
            mode=mode,
            slack_ratio=tuple(arguments.slack_ratio),
            seed=arguments.seed,
        )
        print(
            f"{mode}: {result.num_changed} of {result.num_answers} answers changed,"
            f" {result.num_finals_changed} of {result.num_finals} final values"
            f" {result.examples}, dropped {dict(result.dropped)}"
        )


if __name__ == "__main__":
    main()
