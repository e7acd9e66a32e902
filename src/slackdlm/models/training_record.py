"""How was this model trained to write? A small file beside its weights, from which decoding takes its canvas."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from slackdlm.atomic import write_json
from slackdlm.config import Count, NonNegative, Share, build, settings
from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.adapter_base import Base
from slackdlm.models.checkpoint import locate, read_json

FILE = "slackdlm.json"


@settings
class TrainingRecord:
    """The canvases a model was last trained on. Decides no output: the weights are the model."""

    objective: Literal["ce", "slack_ctc", "mixed"]
    """``objective.kind`` of its recipe."""
    ctc_weight: Share
    """``w`` of ``(1 - w) CE + w slack_ctc``."""
    slack_ratio: tuple[NonNegative, NonNegative]
    """Smallest and largest slack budget as a share of the response tokens."""
    slack_region: Literal["content", "canvas"]
    """``canvas``: slack fell into the end-of-text padding too."""
    padding: Literal["fixed", "llada", "none"]
    """What stood behind a response: see ``data.padding``."""
    canvas_length: Count
    """Canvas positions with ``padding: fixed``, otherwise the most."""
    base: Base | None = None
    """Of an adapter: the model that it was trained on."""

    def __post_init__(self) -> None:
        low, high = self.slack_ratio
        if low > high:
            raise ConfigError(f"slack_ratio: expected low <= high, got [{low}, {high}]")

    def canvas_for(self, gen_length: int) -> int:
        """Positions for so many response tokens and the most slack they were trained with.

        ``S + round(r S)`` with the largest ``r``, as training writes canvases.
        """
        return gen_length + round(self.slack_ratio[1] * gen_length)


def write_record(record: TrainingRecord, folder: Path) -> None:
    """Write it beside the weights or the adapter."""
    content = {key: value for key, value in asdict(record).items() if value is not None}
    write_json(folder / FILE, content)


def read_record(folder: Path) -> TrainingRecord | None:
    """The record in a model's or an adapter's folder; None where there is none.

    Raises:
        CheckpointError: If the file is not such a record.
    """
    file = folder / FILE
    if not file.exists():
        return None
    try:
        return build(TrainingRecord, read_json(file))
    except ConfigError as error:
        raise CheckpointError(
            f"{file}: not a record of training ({error}); copy it again or remove it"
        ) from error


def find_record(
    name_or_path: str | Path, *, adapter: str | Path | None = None
) -> TrainingRecord | None:
    """The record of a model, read without its weights: the adapter's if it has one, else the model's.

    Raises:
        CheckpointError: If there is no such folder or hub id, or the file is not such a record.
    """
    record = None if adapter is None else read_record(locate(adapter, with_weights=False))
    return record or read_record(locate(name_or_path, with_weights=False))
