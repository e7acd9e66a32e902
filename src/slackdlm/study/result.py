"""What did a study find? One record, kept as ``results.json``: the demo and the probe fill it, the report draws it.

Text in a result may come from a model: it is made safe to draw when it enters, and escaped when it is drawn.
"""

import unicodedata
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
)

from slackdlm.errors import DataError, one_line
from slackdlm.jsonl import read_json

LARGEST: Final = 10**12
"""No number of a report is beyond it."""
INTERVENTIONS: Final = {
    "none": "no intervention",
    "shift": "shifted by one place",
    "swap": "swapped with a neighbour",
    "substitute": "substituted in place",
    "drop": "withheld for a step",
}
"""What each kind of intervention does to a content token, in words."""


def drawable(text: str) -> str:
    """Text with control characters and lone surrogates as U+FFFD."""
    return "".join("\ufffd" if _is_undrawable(char) else char for char in text)


def _is_undrawable(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cs") and char not in "\n\t"


def clean(value: Any) -> Any:
    """A JSON value whose text is `drawable`, tuples as lists; RecursionError if it is nested too deeply."""
    if isinstance(value, str):
        return drawable(value)
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value).items()
        return {clean(key): clean(item) for key, item in items}
    if isinstance(value, list | tuple):
        return [clean(item) for item in cast("list[Any]", value)]
    return value


# Strict: "8" is no number, 1 no flag and true no number.
Text = Annotated[str, Strict(), AfterValidator(drawable)]
Number = Annotated[float, Strict(), Field(ge=-LARGEST, le=LARGEST)]
Size = Annotated[float, Strict(), Field(ge=0, le=LARGEST)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Count = Annotated[int, Strict(), Field(ge=0, le=LARGEST)]
Flag = Annotated[bool, Strict()]


class Part(BaseModel):
    """A part of a result; keys that it does not know are left out, objects with its attributes are taken."""

    model_config = ConfigDict(frozen=True, from_attributes=True)


class Figure(Part):
    """A mean over questions with its 95 % interval, as `slackdlm.statistics.Estimate`."""

    value: Number | None
    low: Number | None
    high: Number | None
    num_scored: Count
    num_total: Count


class Dose(Part):
    """What an intervention did, as `slackdlm.sampling.intervention.Dose`; counts of content tokens."""

    asked: Count
    displaced: Count
    impossible: Count
    lost: Count
    committed: Count


class Tally(Part):
    """Judgments by what became of them, as `slackdlm.judgments.Tally`."""

    num_total: Count
    num_scored: Count
    num_failed: Count
    num_unparsable: Count
    num_out_of_range: Count


class Setting(Part):
    """One arm under one decoding condition."""

    arm: Text
    temperature: Size
    steps: Count
    kind: Text
    """A key of `INTERVENTIONS`."""
    rate: Share
    """Share of content tokens intervened on; 0 without an intervention."""


class QualityRow(Setting):
    """Every metric of one setting."""

    tokens_per_step: Number | None = None
    metrics: dict[Text, Figure]
    per_training_seed: dict[Text, list[Number | None]] = Field(default_factory=dict)
    """Metric -> its mean in each training run."""
    dose: Dose | None = None


class WinRow(Setting):
    """A win rate of one setting, in [0, 1], ties half; 0.5 is no difference."""

    against: Text
    """An arm, or ``self``: the same arm's baseline answers."""
    value: Share | None
    low: Number | None
    high: Number | None
    num_scored: Count
    num_total: Count
    per_training_seed: list[Number | None] = Field(default_factory=list)
    per_decoding_seed: list[Number | None] = Field(default_factory=list)
    p_value: Share | None
    """Two-sided sign-flip test over questions."""
    p_adjusted: Share | None
    """Benjamini-Hochberg over all win rates of the result."""
    dose: Dose | None = None
    tally: Tally | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the difference is significant at 0.05, adjusted."""
        return self.p_adjusted is not None and self.p_adjusted < 0.05


class TrendRow(Figure):
    """How an arm's win rate moves with the rate of one kind: slope per unit of rate, 0.5 at rate 0."""

    arm: Text
    kind: Text
    p_value: Share | None


class ContrastRow(Figure):
    """An arm's win rate against its baseline answers, minus that of ``against``; in [-1, 1]."""

    arm: Text
    against: Text
    kind: Text
    rate: Share
    p_value: Share | None
    p_adjusted: Share | None
    """Benjamini-Hochberg over all contrasts."""


class Arm(Part):
    """One model under study."""

    name: Text
    label: Text
    description: Text


class Point(Part):
    """Losses at one training step, in nats."""

    step: Count
    loss: Number | None = None
    eval_ce: Number | None = None
    eval_objective: Number | None = None


class Curve(Part):
    """One training run."""

    arm: Text
    seed: Count
    points: list[Point]


class Cell(Part):
    """One canvas position in a frame."""

    token: Text
    state: Literal["masked", "token", "slack", "end", "displaced", "substituted"]
    new: Flag


class Frame(Part):
    """The canvas after one step."""

    step: Count
    cells: list[Cell]


class Replay(Part):
    """One decoding, step by step."""

    arm: Text
    prompt: Text
    kind: Text
    rate: Share
    text: Text
    frames: list[Frame]


class Sample(Part):
    """One answer to read."""

    prompt: Text
    arm: Text
    text: Text
    canvas: Text
    verdict: Text


class Source(Part):
    """The held-out source texts under the same judge."""

    metrics: dict[Text, Figure]


class Run(Part):
    """How the result came about."""

    slackdlm: Text
    created: Text | None = None
    python: Text | None = None
    torch: Text | None = None
    hardware: Text | None = None
    git: Text | None = None
    config: Annotated[dict[str, Any], BeforeValidator(clean)]
    """All settings, nested."""
    seconds: dict[Text, Size] = Field(default_factory=dict)
    """Stage -> how long it took."""


class Result(Part):
    """All figures of a study, with what a reader needs to read them."""

    title: Text
    summary: list[Text]
    """What the figures say, in sentences."""
    warnings: list[Text]
    """What a reader must know first."""
    run: Run
    arms: list[Arm]
    quality: list[QualityRow]
    source: Source
    win_rates: list[WinRow]
    trends: list[TrendRow] = Field(default_factory=list)
    contrasts: list[ContrastRow] = Field(default_factory=list)
    samples: list[Sample]
    replays: list[Replay]
    training: list[Curve]
    notes: list[Text] = Field(default_factory=list)
    """What the figures rest on, in sentences."""

    def content(self) -> dict[str, Any]:
        """What ``results.json`` holds."""
        return self.model_dump(exclude_unset=True)


def installed_version() -> str:
    """Of this package; a source tree on the path that is not installed has none."""
    try:
        return version("slackdlm")
    except PackageNotFoundError:
        return "of an unknown version"


def read_result(file: Path) -> Result:
    """The result in a ``results.json``, or in a folder of that file.

    Raises:
        DataError: If the file cannot be read or does not hold a result; names file, key, what was expected and
            what came.
    """
    file = file / "results.json" if file.is_dir() else file
    held = read_json(file, what="a results.json")
    if not isinstance(held, dict) or not held.keys() & {"title", "quality"}:
        raise DataError(
            f"{file}: holds no result of slackdlm demo or probe; compare writes its pages beside this file"
        )
    try:
        return Result.model_validate(held)
    except ValidationError as error:
        raise DataError(f"{file}: results: {explained(error)}") from error
    except RecursionError as error:
        raise DataError(f"{file}: results: nested too deeply") from error


def explained(error: ValidationError) -> str:
    """One line about the first key that is wrong: which, what was expected and what came."""
    first = error.errors(include_url=False)[0]
    key = ""
    for part in first["loc"]:
        name = f"[{part}]" if isinstance(part, int) else one_line(part, longest=40)
        key += name if isinstance(part, int) or not key else f".{name}"
    if first["type"] == "missing":
        return f"{key} is missing"
    expected = _EXPECTED.get(first["type"]) or first["msg"].removeprefix("Input should be ")
    value = first["input"]
    if isinstance(value, str | int | float):
        got = one_line(repr(value), longest=60)
    else:
        got = "nothing" if value is None else type(value).__name__
    return f"{key or 'the file'}: expected {expected}, got {got}"


_EXPECTED: Final = {
    "model_attributes_type": "an object",
    "model_type": "an object",
    "dict_type": "an object",
    "list_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
}
