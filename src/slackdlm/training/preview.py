"""What does the model see, and what is it to say? A few draws as pieces of text, each of one kind."""

from itertools import groupby
from typing import Literal, NamedTuple

from transformers import PreTrainedTokenizerFast

from slackdlm.models.chat_format import chat_format
from slackdlm.training.config import Recipe
from slackdlm.training.draw import CanvasSpec, Draw, canvas_spec
from slackdlm.training.prepare import prepare
from slackdlm.training.stream import train_stream

Kind = Literal["prompt", "visible", "masked", "slack", "padding", "target"]


class Piece(NamedTuple):
    """Neighbouring tokens of one kind. Text of a data file: escape it before showing it."""

    text: str
    kind: Kind


class Preview(NamedTuple):
    """One draw."""

    title: str
    """Where the sample came from, and its lengths."""
    chat_format: str
    """How its conversation is written: by which template."""
    seen: list[Piece]
    """Prompt and canvas as the model sees them; masks as ``▒``, padding as its length."""
    hidden: list[Piece]
    """The canvas before masking; ``masked`` is what stands under the masks."""
    target: str
    """What the filled canvas must collapse to."""


def preview_recipe(recipe: Recipe, *, count: int) -> list[Preview]:
    """The first draws of a run.

    Args:
        recipe: The run.
        count: How many.

    Returns:
        The previews, in the order of training.

    Raises:
        ConfigError: As training would.
        DataError: As training would.
        CheckpointError: As training would.
    """
    loaded, samples, _ = prepare(recipe, device="meta")
    data = recipe.data
    spec = canvas_spec(
        loaded,
        canvas_length=data.canvas_length,
        padding=data.padding,
        objective=recipe.objective,
    )
    stream = train_stream(recipe, samples, spec)
    return [
        preview(stream[n], spec, loaded.tokenizer, source=samples[stream.sample_id(n)].source)
        for n in range(min(count, len(stream)))
    ]


def preview(
    draw: Draw, spec: CanvasSpec, tokenizer: PreTrainedTokenizerFast, *, source: str
) -> Preview:
    """One draw as text."""
    noisy, clean = draw.noisy.tolist(), draw.clean.tolist()
    num_padding = len(clean) - draw.ctc_length
    num_slack = clean.count(spec.slack_id)
    title = (
        f"{source}: prompt {draw.prompt.numel()}; canvas {len(clean)} = response"
        f" {draw.target_length} + slack {num_slack} + padding"
        f" {len(clean) - draw.target_length - num_slack}; {noisy.count(spec.mask_id)} masked"
        f" (p = {draw.rate:.2f})"
    )
    masked = [token == spec.mask_id for token in noisy]
    kinds: list[Kind] = ["masked" if is_masked else "visible" for is_masked in masked]
    content = [
        *_pieces(noisy[: draw.ctc_length], kinds[: draw.ctc_length], spec, tokenizer, masks="▒")
    ]
    behind = [
        *_pieces(clean[: draw.ctc_length], kinds[: draw.ctc_length], spec, tokenizer, masks=None)
    ]
    if num_padding:
        padding = Piece(
            f" + {num_padding} x {tokenizer.convert_ids_to_tokens(spec.pad_id)}"
            f" ({sum(masked[draw.ctc_length :])} masked)",
            "padding",
        )
        content.append(padding)
        behind.append(padding)
    prompt = Piece(_decode(tokenizer, draw.prompt.tolist()), "prompt")
    target = draw.target.tolist()[: draw.target_length]
    written = chat_format(tokenizer).description
    return Preview(title, written, [prompt, *content], behind, _decode(tokenizer, target))


def _pieces(
    ids: list[int],
    kinds: list[Kind],
    spec: CanvasSpec,
    tokenizer: PreTrainedTokenizerFast,
    *,
    masks: str | None,
) -> list[Piece]:
    """Runs of one kind; slack is its own kind where it can be seen."""

    def kind_of(pair: tuple[int, Kind]) -> tuple[Kind, bool]:
        token, kind = pair
        is_slack = token == spec.slack_id
        return ("slack" if is_slack and kind == "visible" else kind), is_slack

    pieces: list[Piece] = []
    for (kind, is_slack), group in groupby(zip(ids, kinds, strict=True), key=kind_of):
        tokens = [token for token, _ in group]
        if masks is not None and kind == "masked":
            text = masks * len(tokens)
        elif is_slack:
            text = "·" * len(tokens)
        else:
            text = _decode(tokenizer, tokens)
        pieces.append(Piece(text, kind))
    return pieces


def _decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False))
