"""The ``data`` block of a recipe: which dialogues, and how they are written on canvases."""

from typing import Literal

from slackdlm.config import Count, Flag, Share, Text, settings
from slackdlm.errors import ConfigError

Format = Literal["auto", "messages", "prompt_response", "alpaca"]
"""What a row of the data is."""


@settings
class ColumnsConfig:
    """Names of the columns, where they are not the standard ones: two texts, or ``messages``."""

    prompt: Text = "prompt"
    """Column with the user's turn."""
    response: Text = "response"
    """Column with the assistant's turn."""
    messages: Text | None = None
    """Column with a list of ``{role, content}`` turns; takes the place of the other two."""


@settings
class DataConfig:
    """The training dialogues and the canvases they are written on."""

    train: Text
    """A file (JSONL, a JSON list, CSV, TSV, Parquet or Arrow), a folder of them or of ``save_to_disk``, or
    the hub name of a data set (``owner/name``)."""
    eval: Text | None = None
    """The same for the evaluation loss. Without it ``training.eval_samples`` dialogues are held out
    from the end of ``train``."""
    split: Text = "train"
    """Split of ``train``, where it is a folder or a hub name."""
    eval_split: Text = "test"
    """Split of ``eval``, where it is a folder or a hub name."""
    subset: Text | None = None
    """Configuration of a hub data set that has several."""
    streaming: Flag = False
    """Read a hub data set row by row instead of downloading it first; needs ``max_dialogues``."""
    max_dialogues: Count | None = None
    """Only so many dialogues from the beginning of ``train``, held-out ones included."""
    format: Format = "auto"
    """What a row is. Fields that are not used are named in the log.

    ``messages``: turns of ``role`` and ``content`` (text or text parts) or of ``from`` and ``value``, in
    ``messages``, ``conversations``, ``conversation``, ``dialogue``, ``dialog`` or ``data``.

    ``prompt_response``: a ``prompt``, ``question`` or ``query`` and a ``response``, ``completion``, ``answer`` or
    ``output``, each a text or turns; a prompt's turns are context.

    ``alpaca``: ``instruction`` and ``input`` on lines of their own, and ``output``.

    ``auto``: whichever of these it is; a row that could be two is refused.

    Read with all of them: ``system`` (or ``system_prompt``), ``tools``, and with the last two ``history``, whose
    answers are learnt too. A turn with ``weight: 0``, ``train: false`` or the like is context, a row with it left
    out."""
    columns: ColumnsConfig | None = None
    """Column names, where ``format`` does not find them; no other column is read."""
    max_prompt_length: Count = 256
    """Longest prompt, in tokens. Nothing is ever cut: a sample that is too long is left out,
    counted and named in the log."""
    canvas_length: Count = 256
    """``padding: fixed``: canvas positions ``L`` of every sample, in tokens. Otherwise the most
    that a response and its slack may take."""
    padding: Literal["fixed", "llada", "none"] = "fixed"
    """What stands behind a response, and so what the model learns about length.

    ``fixed``: supervised end-of-text up to ``canvas_length``. The same number of positions in every
    arm, in training and in decoding, so the divisor of the loss and the number of forwards agree;
    matched arms need it. The model learns to end anywhere on a canvas of this length and to fill
    the rest.

    ``llada``: supervised end-of-text up to the longest response (with its slack) of the optimizer
    step, as LLaDA was fine-tuned. Less computation. How much end-of-text a response sees depends on
    the company it keeps: with random batches short answers are trained towards long padding and the
    model tends to end early on long canvases; ``length_grouping`` takes most of the padding, and so
    most of that tendency, away.

    ``none``: nothing. The canvas is the response, its end of turn, and its slack. The model never
    sees what comes behind an end of turn, so in decoding the canvas length decides the length of
    the answer: it fills what it is given.
    """
    length_grouping: Flag = False
    """Batches of samples of similar length (prompt and response; slack does not count, so arms
    share the order), in random order. Saves padding; the order is still one permutation an epoch
    and a function of ``training.data_seed``."""
    max_unusable: Share = 0.1
    """Largest share of samples that may be left out (too long, empty, no answer) before the run is
    refused."""

    def __post_init__(self) -> None:
        if self.columns is not None and self.format != "auto":
            raise ConfigError(
                f"data.format: {self.format} and data.columns both say how a row is read; set"
                " data.columns=null or leave data.format out"
            )
        if self.streaming and self.max_dialogues is None:
            raise ConfigError(
                "data.max_dialogues: required with data.streaming; say how many rows to read"
            )
