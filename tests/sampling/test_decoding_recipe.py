"""Decodings written down as YAML: the same checks as training recipes, and a canvas with room for slack."""

from pathlib import Path

import pytest

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.models.record import TrainingRecord, read_record, write_record
from slackdlm.sampling.config import SamplerConfig
from slackdlm.sampling.recipe import (
    DecodingRecipe,
    InterventionConfig,
    build_recipe,
    read_blocks,
)

RECIPES = Path(__file__).parents[2] / "recipes"
RECORD = TrainingRecord(
    objective="slack_ctc",
    ctc_weight=1.0,
    slack_ratio=(0.0, 0.25),
    slack_region="content",
    padding="fixed",
    canvas_length=64,
)


def load(
    file: Path, overrides: list[str] | None = None, *, record: TrainingRecord | None = None
) -> DecodingRecipe:
    return build_recipe(read_blocks(file, overrides or []), record=record, file=file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("sampler: {gen_length: 10, steps: 5}\nintervention: {kind: swap, rate: 0.1}\n")
    return path


@pytest.mark.parametrize("name", [file.name for file in RECIPES.glob("decode-*.yaml")])
def test_every_shipped_recipe_can_be_read(name: str) -> None:
    recipe = load(RECIPES / name)
    assert recipe.shift is None
    assert recipe.sampler.canvas_length in (128, 256)


def test_the_recipe_of_llada_has_the_settings_of_its_published_example() -> None:
    sampler = load(RECIPES / "decode-llada-8b-instruct.yaml").sampler
    assert sampler == SamplerConfig(canvas_length=128, steps=128, block_length=32)


def test_the_blocks_become_a_sampler_and_an_intervention(file: Path) -> None:
    recipe = load(file, ["sampler.seed=3", "intervention.when=late"])
    assert recipe.sampler == SamplerConfig(canvas_length=10, steps=5, seed=3)
    assert recipe.intervention == InterventionConfig(kind="swap", rate=0.1, when="late")
    assert vars(recipe.shift) == {
        "rate": 0.1,
        "kind": "swap",
        "direction": "both",
        "when": "late",
        "seed": 3,
    }


def test_response_tokens_get_room_for_the_slack_trained_with(file: Path) -> None:
    assert load(file, record=RECORD).sampler.canvas_length == 12
    asked = ["sampler.canvas_length=10"]  # one length takes the other's place
    assert load(file, asked, record=RECORD).sampler.canvas_length == 10


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "sampler.stpes=3",
            r"mine\.yaml: sampler\.stpes: unknown key; did you mean sampler\.steps",
        ),
        ("model.path=x", r"model: unknown key; known keys: sampler, intervention"),
        ("sampler.gen_length=null", r"sampler: expected gen_length .* got neither"),
        ("sampler.gen_length=0", r"sampler\.gen_length: expected a whole number above 0, got 0"),
        ("sampler.gen_length=true", r"sampler\.gen_length: expected a whole number"),
        ("sampler.cache=dua", r"sampler\.cache: .* did you mean dual\?"),
        ("sampler.seed=-1", r"sampler\.seed: expected at least 0, got -1"),
        ("sampler.block_length=11", r"block_length: expected at most canvas_length=10"),
        ("sampler=3", r"sampler: expected a mapping of keys, got 3"),
        ("intervention.rate=2", r"intervention\.rate: expected at most 1, got 2"),
        ("intervention.kind=null", r"intervention\.kind: expected one of"),
        ("intervention.seed=1", r"intervention\.seed: unknown key"),
        ("intervention=shift", r"intervention: expected a mapping of keys, got 'shift'"),
    ],
)
def test_a_wrong_recipe_is_refused(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(file, [override])


def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="expected the blocks sampler and intervention"):
        load(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match="no such recipe file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("ratio", "tokens", "positions"), [(0.0, 7, 7), (0.1, 10, 11), (0.25, 10, 12), (1.5, 4, 10)]
)
def test_the_canvas_is_as_long_as_training_would_make_it(
    ratio: float, tokens: int, positions: int
) -> None:
    record = TrainingRecord(
        objective="ce",
        ctc_weight=0.0,
        slack_ratio=(0.0, ratio),
        slack_region="canvas",
        padding="none",
        canvas_length=9,
    )
    assert record.canvas_for(tokens) == positions


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(RECORD, tmp_path)
    assert read_record(tmp_path) == RECORD


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"slack_ratio"', '"slack"', r"slackdlm\.json: not a record of training \(slack: unknown"),
        ("0.25", "-1", r"slack_ratio: expected at least 0, got -1"),
        ("0.25", "Infinity", r"expected JSON, got Infinity is no JSON number"),
        ("{", "[", r"slackdlm\.json: expected JSON"),
    ],
)
def test_a_torn_record_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_record(RECORD, tmp_path)
    file = tmp_path / "slackdlm.json"
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(CheckpointError, match=message):
        read_record(tmp_path)
