"""Does collapse give the answer back, letter for letter? Canvas, fill with the true path, collapse, compare.

With ``mode="slack"`` it must, whatever the answer. With ``mode="graves"`` adjacent repeats merge unless slack happens
to fall between them: ``1000`` can come back as ``10``. No model is involved: this is a property of the map.
"""

from collections import Counter
from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from slackdlm.canvas import draw_num_slack, insert_slack
from slackdlm.collapse import CollapseMode, collapse
from slackdlm.errors import ConfigError
from slackdlm.evaluation.surface_form import Kind, dropped_kinds
from slackdlm.models.loading import load_model
from slackdlm.models.tokenizer import SLACK, special_id, train_tokenizer


class SurfaceForm(NamedTuple):
    """How many answers survive."""

    num_answers: int
    """Answers tried."""
    num_changed: int
    """Answers whose text differs after collapse."""
    num_finals: int
    """Answers with a final value after ``####``."""
    num_finals_changed: int
    """Answers whose final value differs after collapse."""
    examples: list[tuple[str, str]]
    """Up to five final values before and after."""
    dropped: dict[Kind, int]
    """Content tokens that the map dropped, by kind."""


def final_value(answer: str) -> str | None:
    """What follows the last ``####`` of a GSM8K answer, stripped; ``None`` where there is none."""
    return answer.rsplit("####", 1)[1].strip() if "####" in answer else None


def survey(
    answers: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    *,
    slack_id: int,
    mode: CollapseMode,
    slack_ratio: tuple[float, float],
    seed: int,
) -> SurfaceForm:
    """Count the answers that change between canvas and text.

    Args:
        answers: Gold answers.
        tokenizer: Any that decodes what it encodes.
        slack_id: Id of ``<slack>``.
        mode: Collapse map.
        slack_ratio: Range of the slack budget, as a share of the answer's tokens, above 1 too.
        seed: Of the slack.
    """
    generator = torch.Generator().manual_seed(seed)

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids)))

    changed = finals = finals_changed = 0
    examples: list[tuple[str, str]] = []
    dropped: Counter[Kind] = Counter()
    for answer in answers:
        ids = torch.tensor(tokenizer.encode(answer, add_special_tokens=False), dtype=torch.long)
        num_slack = draw_num_slack(
            len(ids),
            slack_ratio=slack_ratio,
            room=ceil(slack_ratio[1] * len(ids)) + 1,
            generator=generator,
        )
        canvas = insert_slack(ids, num_slack, slack_id=slack_id, generator=generator)
        text = decode(collapse(canvas.tolist(), slack_id=slack_id, mode=mode))
        if mode == "graves":
            dropped.update(dropped_kinds(canvas.tolist(), decode, slack_id=slack_id))
        before, after = final_value(answer), final_value(text)
        changed += text != answer
        finals += before is not None
        if before is not None and before != after:
            finals_changed += 1
            if len(examples) < 5:
                examples.append((before, after or ""))
    return SurfaceForm(len(answers), changed, finals, finals_changed, examples, dict(dropped))


def answers_tokenizer(
    answers: Sequence[str], name: str | None
) -> tuple[PreTrainedTokenizerFast, int]:
    """The tokenizer of a model and its slack id, or a byte-level BPE fitted to the answers.

    Args:
        answers: Texts the tokenizer must be able to spell.
        name: Model folder or hub id; ``None``: fit one with 2,048 tokens.
    """
    if name is not None:
        loaded = load_model(name)
        return loaded.tokenizer, loaded.slack_id
    tokenizer = train_tokenizer(answers, vocab_size=2048, kind="byte_bpe")
    slack_id = special_id(tokenizer, SLACK)
    if slack_id is None:
        raise ConfigError(f"surface-form: the tokenizer has no {SLACK} token")
    return tokenizer, slack_id
