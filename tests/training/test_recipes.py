"""Every recipe loads; matched pairs differ in the objective alone; memory is planned before loading."""

import json
from pathlib import Path

import pytest
import yaml
from arms import small_tokenizer

from slackdlm.config import flatten
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.special_tokens import END_OF_TEXT, MASK
from slackdlm.training.config import Recipe, load_recipe
from slackdlm.training.plan import largest_micro_batch, plan_memory

# Shape checks of every block of LLaDA-8B would take longer than the plans.
pytestmark = pytest.mark.usefixtures("unchecked_shapes")

RECIPES = Path(__file__).parents[2] / "recipes"
OTHERS = ("decode-", "judge-")
NAMES = sorted(f.stem for f in RECIPES.glob("*.yaml") if not f.stem.startswith(OTHERS))
PAIRS = [
    ("tiny-gsm8k-ce", "tiny-gsm8k"),
    *((name, name.replace("-ce", "-slack-ctc")) for name in NAMES if not name.startswith("tiny")),
]
PAIRS = [pair for pair in PAIRS if pair[0].endswith("-ce")]


def test_every_recipe_belongs_to_a_pair() -> None:
    assert sorted(name for pair in PAIRS for name in pair) == NAMES
    assert len(PAIRS) == 5


@pytest.mark.parametrize(("ce", "ctc"), PAIRS)
def test_matched_recipes_differ_in_the_objective_block_alone(ce: str, ctc: str) -> None:
    a, b = (flatten(load_recipe(RECIPES / f"{name}.yaml").as_dict()) for name in (ce, ctc))
    assert {key.split(".")[0] for key in a if a[key] != b[key]} == {"objective"}
    assert a["objective.kind"] == "ce"
    assert b["objective.kind"] == "slack_ctc"
    assert a["data.padding"] == "fixed"


@pytest.fixture(scope="module")
def llada_8b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the shape of LLaDA-8B and no weights."""
    folder, tokenizer = tmp_path_factory.mktemp("llada-8b"), small_tokenizer()
    tokenizer.save_pretrained(folder)
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    config = LLaDAConfig(
        mlp_hidden_size=12288,
        mask_token_id=tokenizer.convert_tokens_to_ids(MASK),
        eos_token_id=end,
        pad_token_id=end,
    )
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


def llada_recipe(name: str, folder: Path, *options: str) -> Recipe:
    return load_recipe(RECIPES / f"{name}.yaml", [f"model.path={folder}", *options])


@pytest.mark.parametrize("arm", ["ce", "slack-ctc"])
def test_the_llada_recipes_are_planned_from_shapes_alone(llada_8b: Path, arm: str) -> None:
    lora = plan_memory(llada_recipe(f"llada-8b-lora-{arm}", llada_8b))
    assert lora.num_parameters - lora.num_trainable == 8_015_581_184
    assert lora.weights == 2 * 8_015_581_184 + 4 * lora.num_trainable
    assert lora.peak < 30e9
    full = llada_recipe(f"llada-8b-full-{arm}", llada_8b)
    assert plan_memory(full, num_processes=8).peak > 80e9
    sharded = plan_memory(full, num_processes=8, sharded=True)
    assert sharded.optimizer == 8 * 8_015_581_184 // 8
    assert sharded.peak < 80e9


def test_the_arms_of_a_pair_need_nearly_the_same_memory(llada_8b: Path) -> None:
    ce, ctc = (
        plan_memory(llada_recipe(f"llada-8b-lora-{arm}", llada_8b)).peak
        for arm in ("ce", "slack-ctc")
    )
    assert ce < ctc < 1.03 * ce


def test_the_largest_batch_that_fits_divides_the_global_one(llada_8b: Path) -> None:
    recipe = llada_recipe("llada-8b-lora-ce", llada_8b)
    size = largest_micro_batch(recipe, memory=80e9)
    assert size is not None
    assert recipe.training.batch_size % size == 0
    assert plan_memory(recipe, micro_batch_size=size).peak <= 80e9
    assert plan_memory(recipe, micro_batch_size=2 * size).peak > 80e9
    assert largest_micro_batch(recipe, memory=10e9) is None


def test_accelerate_files_are_yaml() -> None:
    files = sorted((RECIPES / "accelerate").glob("*.yaml"))
    kinds = [yaml.safe_load(file.read_text())["distributed_type"] for file in files]
    assert kinds == ["MULTI_GPU", "DEEPSPEED", "FSDP"]
