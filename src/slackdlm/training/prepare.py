"""What does a run begin with? The model of a recipe, and the samples of its data files."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftModel

from slackdlm.errors import ConfigError, DataError, counted
from slackdlm.models import encoder
from slackdlm.models.adapter import new_adapter
from slackdlm.models.chat import written_fields
from slackdlm.models.checkpoint import read_json
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.hub import locate
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, new_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.training.config import FromScratchConfig, Recipe
from slackdlm.training.data import Sample, encode_samples, num_shared, read_dialogues
from slackdlm.training.dialogues import Dialogue, description
from slackdlm.training.engine import receives_weights
from slackdlm.training.processes import this_process

_LOG = logging.getLogger(__name__)


class Prepared(NamedTuple):
    """All that a recipe names, in memory."""

    loaded: LoadedModel
    """Trained in place. Copy it first to keep the weights it came with."""
    samples: Sequence[Sample]
    """Training samples, their order part of the run."""
    eval_samples: Sequence[Sample]
    """Samples of the evaluation loss; none: no evaluation."""


def prepare(recipe: Recipe, *, device: str | None = None) -> Prepared:
    """Model, training samples and evaluation samples of a recipe.

    Args:
        recipe: The run.
        device: ``"meta"`` leaves the weights of ``model.path`` where they are: enough to look at
            the data.

    Raises:
        ConfigError: If the recipe is wrong or the model has no room for its samples.
        DataError: If a data file cannot be used.
        CheckpointError: If the model cannot be loaded.
    """
    dialogues, held_out = read_recipe_dialogues(recipe)
    loaded = _model(recipe, dialogues, device=device)
    _check_room(loaded, recipe)
    if recipe.data.eval is None:
        _say_what_is_read("train", [*dialogues, *held_out], loaded, recipe)
    else:
        _say_what_is_read("train", dialogues, loaded, recipe)
        _say_what_is_read("eval", held_out, loaded, recipe)
    lengths: dict[str, Any] = {
        "max_prompt_length": recipe.data.max_prompt_length,
        "canvas_length": recipe.data.canvas_length,
        "max_unusable": recipe.data.max_unusable,
    }
    samples = encode_samples(dialogues, loaded.tokenizer, name="train", **lengths)
    if not held_out:
        return Prepared(loaded, samples, [])
    if recipe.data.eval is None:  # few, of the same kind as those that passed
        lengths["max_unusable"] = 1.0
    eval_samples = encode_samples(held_out, loaded.tokenizer, name="eval", **lengths)
    eval_samples = eval_samples[: recipe.training.eval_samples]
    _warn_of_shared(eval_samples, samples)
    return Prepared(loaded, samples, eval_samples)


def _say_what_is_read(
    name: str, dialogues: Sequence[Dialogue], loaded: LoadedModel, recipe: Recipe
) -> None:
    if dialogues and this_process().is_main_process:
        written = written_fields(loaded.tokenizer)
        text, is_lossy = description(dialogues, written, recipe.data.columns)
        _LOG.log(logging.WARNING if is_lossy else logging.INFO, "%s: %s", name, text)


def _warn_of_shared(eval_samples: Sequence[Sample], samples: Sequence[Sample]) -> None:
    """What a model has been trained on says little of what it has learnt."""
    shared = num_shared(eval_samples, samples)
    if shared and this_process().is_main_process:
        _LOG.warning(
            "eval: %d of %s are trained on too, so the evaluation shows what is remembered as well; give"
            " another file (data.eval) or remove repeated rows",
            shared,
            counted(len(eval_samples), "sample"),
        )


def read_recipe_dialogues(recipe: Recipe) -> tuple[list[Dialogue], list[Dialogue]]:
    """Dialogues to train on and to evaluate on (none: no evaluation).

    Raises:
        ConfigError: If a split of a single file is asked for.
        DataError: If they cannot be read, or holding out leaves none to train on.
    """
    data, num_held_out = recipe.data, recipe.training.eval_samples
    _refuse_split("data.split", data.train, asked=data.split != "train")
    _refuse_split("data.eval_split", data.eval, asked=data.eval_split != "test")
    _refuse_split("data.subset", data.train, asked=data.subset is not None)
    where: dict[str, Any] = {
        "columns": data.columns,
        "form": data.format,
        "subset": data.subset,
        "streaming": data.streaming,
    }
    dialogues = read_dialogues(data.train, split=data.split, limit=data.max_dialogues, **where)
    if num_held_out == 0:
        return dialogues, []
    if data.eval is not None:
        limit = num_held_out if data.streaming else None
        return dialogues, read_dialogues(data.eval, split=data.eval_split, limit=limit, **where)
    if num_held_out >= len(dialogues):
        raise DataError(
            f"training.eval_samples: holds out {num_held_out} of {len(dialogues)} dialogues and"
            " leaves none to train on; lower it or give data.eval"
        )
    return dialogues[:-num_held_out], dialogues[-num_held_out:]


def _refuse_split(key: str, file: str | None, *, asked: bool) -> None:
    """All of a file would be read, whatever split is named; of what ``save_to_disk`` wrote of one split too."""
    if not asked or file is None:
        return
    path = Path(file).expanduser()
    if path.is_file() or (path / "state.json").is_file():
        kind = "file" if path.is_file() else "data set on disk"
        part = "subsets" if key == "data.subset" else "splits"
        raise ConfigError(f"{key}: {file} is a {kind}, which has no {part}; leave {key} out")


def _model(recipe: Recipe, dialogues: Sequence[Dialogue], *, device: str | None) -> LoadedModel:
    shape = recipe.model.from_scratch
    if shape is None:
        is_sent = device is None and _is_sent(recipe)
        loaded = load_model(
            str(recipe.model.path),
            adapter=recipe.model.adapter if device is None else None,
            dtype=recipe.model.dtype,
            device="meta" if is_sent else device,
            quantization=recipe.model.quantization if device is None else None,
        )
        if device is not None:
            return loaded
        if recipe.model.lora is not None:
            loaded = new_adapter(loaded, **asdict(recipe.model.lora), seed=recipe.training.seed)
        elif isinstance(loaded.model, PeftModel):
            loaded.model.set_adapter("default")  # It comes frozen; this makes it trainable.
        if is_sent:
            # Addresses, by which accelerate knows a weight again; nothing lies there until it is written.
            loaded.model.to_empty(device="cpu")
        return loaded
    contents = [turn["content"] for dialogue in dialogues for turn in dialogue.messages]
    texts = [content for content in contents if isinstance(content, str)]
    tokenizer = train_tokenizer(texts, vocab_size=shape.vocab_size, kind=shape.tokenizer_kind)
    config = new_config(recipe, shape, vocab_size=len(tokenizer))
    return new_model(config, tokenizer, generator_seed=recipe.training.seed)


def new_config(
    recipe: Recipe, shape: FromScratchConfig, *, vocab_size: int, weight_tying: bool = False
) -> LLaDAConfig:
    """The configuration of a recipe's new model."""
    return LLaDAConfig(
        vocab_size=vocab_size,
        d_model=shape.d_model,
        n_layers=shape.n_layers,
        n_heads=shape.n_heads,
        mlp_hidden_size=shape.mlp_hidden_size,
        max_sequence_length=recipe.data.max_prompt_length + recipe.data.canvas_length,
        weight_tying=weight_tying,
    )


def _is_sent(recipe: Recipe) -> bool:
    """Whether the first process sends this one the weights of ``model.path``.

    Encoders have buffers beside them, which it does not send.
    """
    if not receives_weights():
        return False
    # Downloaded by all: none may wait that long for another.
    folder = locate(str(recipe.model.path))
    return not encoder.is_encoder(read_json(folder / "config.json").get("model_type"))


def _check_room(loaded: LoadedModel, recipe: Recipe) -> None:
    needed = recipe.data.max_prompt_length + recipe.data.canvas_length
    if needed > loaded.max_length:
        raise ConfigError(
            f"data.max_prompt_length + data.canvas_length: {needed} positions, but {loaded.name}"
            f" takes at most {loaded.max_length}; lower one of them"
        )
