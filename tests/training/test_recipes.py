from pathlib import Path

import pytest

from slackdlm.training.config import load_recipe
from slackdlm.training.parsing import flatten

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", ["tiny-gsm8k", "tiny-gsm8k-ce"])
def test_the_tiny_recipes_load(name: str) -> None:
    assert load_recipe(RECIPES / f"{name}.yaml").name == name


def test_the_matched_recipes_differ_in_the_objective_block_alone() -> None:
    ce, ctc = (
        flatten(load_recipe(RECIPES / f"{n}.yaml").as_dict())
        for n in ("tiny-gsm8k-ce", "tiny-gsm8k")
    )
    assert {key.split(".")[0] for key in ce if ce[key] != ctc[key]} == {"objective"}
