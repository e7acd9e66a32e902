from pathlib import Path

import pytest

from slackdlm.errors import ConfigError
from slackdlm.training.config import ObjectiveConfig, TrainingConfig, load_recipe

RECIPE = """
model: {from_scratch: {}}
data: {train: x.jsonl}
objective: {kind: ce}
training: {steps: 5}
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    file = tmp_path / "mine.yaml"
    file.write_text(RECIPE)
    return file


def test_a_recipe_is_named_after_its_file(recipe_file: Path) -> None:
    assert load_recipe(recipe_file).name == "mine"


def test_an_override_wins_over_the_file(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["training.steps=7", "objective.slack_ratio=[0, 0.25]"])
    assert recipe.training.steps == 7
    assert recipe.objective.slack_ratio == (0.0, 0.25)


def test_a_recipe_as_a_dict_holds_the_four_blocks_alone(recipe_file: Path) -> None:
    blocks = load_recipe(recipe_file).as_dict()
    assert list(blocks) == ["model", "data", "objective", "training"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "training.lerning_rate=1",
            r"mine\.yaml: training\.lerning_rate: unknown key; did you mean",
        ),
        ("model.path=some", r"model: expected exactly one of model\.path and model\.from_scratch"),
        ("model.adapter=some", r"model\.adapter: an adapter needs the model\.path"),
        (
            "training.learning_rate=.inf",
            r"learning_rate: expected a finite number, got inf",
        ),
        (
            "training.learning_rate=.nan",
            r"learning_rate: expected a finite number, got nan",
        ),
        (
            "training.steps=10000000000000000000000",
            r"training.steps: expected at most 9007199254740992",
        ),
        ("objective.slack_ratio=[0, .inf]", r"slack_ratio: expected a finite number, got inf"),
        (
            "model.from_scratch.vocab_size=64",
            r"vocab_size: byte_bpe needs at least 263, .*, got 64",
        ),
        (
            "model.from_scratch.n_heads=3",
            r"d_model: expected an even multiple of n_heads = 3, got 128",
        ),
        ("model.from_scratch.n_layers=0", r"n_layers: expected at least 1, got 0"),
        ("data.canvas_length=0", r"data\.canvas_length: expected at least 1, got 0"),
        ("objective.kind=mixed", r"objective\.ctc_weight: required for kind: mixed .* missing"),
        ("objective.ctc_weight=0.5", r"objective\.ctc_weight: .* given with kind: ce"),
        ("objective.slack_ratio=[0.5, 0.1]", r"slack_ratio: expected 0 <= low <= high"),
        ("objective.eps=0", r"objective\.eps: expected a number above 0, got 0"),
        ("training.steps=0", r"training\.steps: expected at least 1, got 0"),
        ("training.micro_batch_size=0", r"training\.micro_batch_size: expected at least 1"),
        ("training.weight_decay=-1", r"training\.weight_decay: expected at least 0, got -1"),
        ("training.learning_rate=0", r"training\.learning_rate: expected a number above 0"),
        ("training.schedule=cosin", r"training\.schedule: .* did you mean cosine\?"),
        (
            "training.report_to=comet",
            r"training\.report_to: expected one of none, tensorboard, wandb, mlflow",
        ),
        ("training.seed=-1", r"training\.seed: expected at least 0, got -1"),
        ("training.keep_checkpoints=0", r"training\.keep_checkpoints: expected at least 1, got 0"),
        ("objective.kind=ctc", r"objective\.kind: expected one of ce, slack_ctc, mixed, got 'ctc'"),
        ("objective.slack_ratio=0.5", r"slack_ratio: expected a list, got 0\.5"),
        ("data.padding=llda", r"data\.padding: .*got 'llda' .* did you mean llada\?"),
        ("data.canvas_length=long", r"data\.canvas_length: expected a whole number, got 'long'"),
        ("data.max_prompt_length=0", r"data\.max_prompt_length: expected at least 1, got 0"),
        ("data.max_dialogues=0", r"data\.max_dialogues: expected at least 1, got 0"),
        ("data.max_unusable=2", r"data\.max_unusable: expected at most 1, got 2"),
        ("data.streaming=true", r"data\.max_dialogues: required with data\.streaming; say how"),
        ("data.columns={user: q}", r"data\.columns\.user: unknown key; known keys: prompt, resp"),
        ("data={}", r"data\.train: this key is required and missing; add it or pass --set"),
        ("model.dtype=bfloat16", r"bfloat16 weights are for adapters \(model\.lora\)"),
        ("model.dtype=fp8", r"model\.dtype: expected one of float32, bfloat16, got 'fp8'"),
        ("model.lora={}", r"model\.lora: an adapter needs a model\.path to be trained on"),
        ("model.quantization=4bit", r"quantised weights cannot be trained; add model\.lora"),
        ("model={}", r"model: expected exactly one of model\.path and model\.from_scratch"),
        ("model={path: a, lora: {rank: 0}}", r"model\.lora\.rank: expected at least 1, got 0"),
        ("model={path: a, lora: {alpha: 0}}", r"lora\.alpha: expected a number above 0, got 0"),
        ("model={path: a, lora: {dropout: 1}}", r"lora\.dropout: expected a number below 1"),
        (
            "model={path: a, lora: {target_modules: q_proj}}",
            r"target_modules: expected a list, got 'q_proj'",
        ),
        ("model={path: a, lora: {}, adapter: b}", r"either a new adapter .* got both"),
        (
            "model={path: a, lora: {}, quantization: 8bit}",
            r"model\.quantization: expected one of 4bit, got '8bit'",
        ),
    ],
)
def test_a_wrong_recipe_is_refused(recipe_file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe_file, [override])


def test_a_weight_outside_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ctc_weight: expected at most 1, got 1.5"):
        ObjectiveConfig(kind="mixed", ctc_weight=1.5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: there is no such recipe file"):
        load_recipe(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- 1", "expected the blocks model, data")]
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_recipe(file)


@pytest.mark.parametrize(
    ("kind", "given", "weight"), [("ce", None, 0.0), ("slack_ctc", None, 1.0), ("mixed", 0.3, 0.3)]
)
def test_the_kinds_are_three_weights_of_one_objective(
    kind: str, given: float | None, weight: float
) -> None:
    assert ObjectiveConfig(kind=kind, ctc_weight=given).weight == weight  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("batch", "micro", "processes", "expected"),
    [(8, None, 1, 1), (8, 2, 1, 4), (8, 2, 2, 2), (8, None, 4, 1)],
)
def test_accumulation_fills_the_global_batch(
    batch: int, micro: int | None, processes: int, expected: int
) -> None:
    training = TrainingConfig(steps=1, batch_size=batch, micro_batch_size=micro)
    assert training.num_accumulation(num_processes=processes) == expected


@pytest.mark.parametrize(("micro", "processes", "product"), [(3, 1, "3 x 1"), (None, 3, "2 x 3")])
def test_a_batch_that_does_not_split_evenly_is_refused(
    micro: int | None, processes: int, product: str
) -> None:
    training = TrainingConfig(steps=1, batch_size=8, micro_batch_size=micro)
    message = rf"batch_size: 8 is not a multiple of .* = {product}; change one of them"
    with pytest.raises(ConfigError, match=message):
        training.num_accumulation(num_processes=processes)
