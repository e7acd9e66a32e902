"""What every test shares: hypothesis without deadlines, a switch for the shape checks."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings

settings.register_profile("slackdlm", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("slackdlm")


SYSTEM = (
    "test_answering test_cli_decoding test_cli_hostile test_cli_train_inputs test_cpu_cache"
    " test_decode_cost test_demo test_demo_figures test_divided_weights test_dream_training"
    " test_encoder test_encoder_plan test_fuzz test_gpu_check test_judge_command test_judging"
    " test_launched test_launched_errors test_model_alignment test_page test_plan test_plausible"
    " test_plots test_probe_command test_recipes test_run test_several_processes test_trainer"
    " test_triton_kernel test_unfinished_replies test_workers"
).split()
"""Files of tests that train, start processes and servers, run whole commands, or draw pages."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark them, and whatever is slow, so that ``-m "not system"`` is what one waits for."""
    for item in items:
        if item.path.stem in SYSTEM or item.get_closest_marker("slow"):
            item.add_marker("system")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import them where they are left out: that takes as long as half of the others."""
    is_left_out = config.option.markexpr == "not system" and collection_path.stem in SYSTEM
    return True if is_left_out else None


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switches the jaxtyping checks off, as they are for users: our own errors are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def toy():
    """A random toy LLaDA over the toy language's words."""
    from toy_models import random_llada

    from slackdlm.models.tokenizer import train_tokenizer
    from slackdlm.study.toy_language import vocabulary

    tokenizer = train_tokenizer([" ".join(vocabulary())], vocab_size=256, kind="word")
    return random_llada(
        tokenizer, d_model=32, n_layers=2, mlp_hidden_size=64, max_length=128, seed=3
    )


@pytest.fixture(scope="session")
def toy_folder(toy, tmp_path_factory) -> Path:
    """The same, saved."""
    from slackdlm.models.loading import save_model

    folder = tmp_path_factory.mktemp("toy") / "model"
    save_model(toy, folder)
    return folder


TRAIN_RECIPE = """
model:
  from_scratch: {{tokenizer_kind: byte_bpe, vocab_size: 300, d_model: 16, n_layers: 1, n_heads: 2, mlp_hidden_size: 32}}
data: {{train: {train}, columns: {{prompt: question, response: answer}}, max_prompt_length: 64, canvas_length: 32}}
objective: {{kind: slack_ctc, slack_ratio: [0.0, 0.5]}}
training: {{steps: 3, batch_size: 2, eval_samples: 2, eval_every: 3, save_every: 0}}
"""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder made by the train command."""
    from slackdlm.cli import main

    folder = tmp_path_factory.mktemp("cli")
    rows = [{"question": f"What is {n} plus 1?", "answer": f"{n + 1}"} for n in range(12)]
    data = folder / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe = folder / "toy.yaml"
    recipe.write_text(TRAIN_RECIPE.format(train=data), encoding="utf-8")
    assert main(["train", str(recipe), "--output", str(folder / "run"), "--quiet"]) == 0
    return folder


ROOT = Path(__file__).parents[1]


@pytest.fixture
def excerpts() -> Path:
    """Unchanged lines of published files; see the NOTICE beside them."""
    return ROOT / "tests" / "data"


@pytest.fixture
def published() -> Path:
    """Whole published files, from the folder SLACKDLM_DATA; the test is skipped without them."""
    folder = os.environ.get("SLACKDLM_DATA")
    if folder is None:
        pytest.skip("SLACKDLM_DATA names no folder of published files")
    return Path(folder)


@pytest.fixture(scope="session")
def rubric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge prompt in Creative-Writing-Bench's layout with criteria beside it; ours, as its own have no licence."""
    folder = tmp_path_factory.mktemp("rubric")
    (folder / "creative_writing_criteria.txt").write_text("Clear\nVivid\nDull")
    (folder / "negative_criteria.txt").write_text("Dull")
    prompt = folder / "creative_writing_judging_prompt.txt"
    prompt.write_text(
        "Grade it.\n{lower_is_better_criteria}\n[P]\n{writing_prompt}\n[R]\n{test_model_response}\n[C]\n"
        "{creative_writing_criteria}"
    )
    return prompt
