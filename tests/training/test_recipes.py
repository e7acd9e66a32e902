from pathlib import Path

import pytest
import yaml

from slackdlm.training.config import load_recipe
from slackdlm.training.parsing import flatten

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.mark.parametrize("name", ["tiny-gsm8k", "tiny-gsm8k-ce", "tiny-gsm8k-slack-ctc"])
def test_the_tiny_recipes_load(name: str) -> None:
    assert load_recipe(RECIPES / f"{name}.yaml").name == name


@pytest.mark.parametrize("twin", ["tiny-gsm8k", "tiny-gsm8k-slack-ctc"])
def test_the_matched_recipes_differ_in_the_objective_block_alone(twin: str) -> None:
    ce, ctc = (
        flatten(load_recipe(RECIPES / f"{n}.yaml").as_dict()) for n in ("tiny-gsm8k-ce", twin)
    )
    assert {key.split(".")[0] for key in ce if ce[key] != ctc[key]} == {"objective"}


def test_the_short_name_is_the_slack_ctc_recipe() -> None:
    short, full = (
        yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
        for name in ("tiny-gsm8k", "tiny-gsm8k-slack-ctc")
    )
    assert short == full
