"""What is fuzzed: a valid file of every kind, its reader, and what must hold of whatever the reader accepts."""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from hostile_inputs import Kind, Syntax
from safetensors.torch import load_file, save_file

from slackdlm import judgments
from slackdlm.benchmarks import (
    answers,
    arena_hard,
    creative_writing,
    mt_bench,
    wildbench,
)
from slackdlm.benchmarks.answers import read_answer_file
from slackdlm.benchmarks.creative_writing import Criteria
from slackdlm.benchmarks.judgment_files import read_judgment_file
from slackdlm.config import flatten
from slackdlm.models.adapter import new_adapter
from slackdlm.models.chat import encode_prompt
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loading import load_model, new_model, save_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.report.page import render
from slackdlm.study.result import Result, clean, read_result
from slackdlm.training import config
from slackdlm.training.config import Recipe, load_recipe
from slackdlm.training.data import read_dialogues

DATA = Path(__file__).parents[1] / "data"
RECIPES = Path(__file__).parents[2] / "recipes"
CRITERIA = Criteria(("Clear", "Dull"), ("Dull",))


def alone(file: str) -> Callable[[Path], Path]:
    """The file needs nothing beside it."""
    return lambda folder: folder / file


def anything(_content: bytes, _found: Any) -> None:
    """Whatever is read may be right."""


# Rows of benchmarks, answers and judgments


def excerpt(name: str) -> list[Any]:
    return [json.loads(line) for line in (DATA / name).read_text().split("\n") if line][:3]


GAME = asdict(judgments.Game("q", "a", "b", 0, 1.0, "A>B", "ok", None, {"judge": "j"}))
GRADE = asdict(judgments.Grade("q", "a", 1, 3.0, "ok", None, {"judge": "j"}))
TASK = {
    "session_id": "s", "conversation_input": [{"role": "user", "content": "q"}], "checklist": ["c"],
    "primary_tag": "Math",
}  # fmt: skip
ANNOTATION = {
    "instruction": "i", "output_1": "a", "output_2": "b", "generator_1": "g", "generator_2": "h",
    "preference": 1.5,
}  # fmt: skip
ARENA = {
    "uid": "u", "category": "c", "judge": "j", "model": "m", "baseline": "b",
    "games": [
        {"score": "A>B", "judgment": {"answer": "[[A>B]]"}, "prompt": [{"role": "user", "content": "u"}]},
        None,
    ],
}  # fmt: skip
PIECE = {"model_response": "x", "judge_scores": {"Clear": 3, "Dull": 4}}
RUN = {
    "r": {
        "test_model": "m",
        "judge_model": "j",
        "creative_tasks": {"1": {"1": {"results_by_modifier": {"s": PIECE}}}},
    }
}
ANSWER = {
    "id": "q", "category": None, "turn": 1, "system": "m", "prompt": [{"role": "user", "content": "q"}], "text": "t",
    "tokens": [1], "canvas": [1, 2],
}  # fmt: skip


def read_wildbench_pairs(path: Path) -> Any:
    """The folder names the reference."""
    folder = path.parent / "ref=r"
    folder.mkdir(exist_ok=True)
    return wildbench.read_pairs(path.rename(folder / path.name))


ROWS: dict[str, tuple[Callable[[Path], Any], list[Any]]] = {
    "questions": (answers.read_questions, [
        {"id": "a", "prompt": "one"}, {"id": 2, "messages": [{"role": "user", "content": "two"}], "category": "c"},
    ]),
    "answers": (read_answer_file, [ANSWER, ANSWER | {"id": "r"}]),
    "arena-hard questions": (arena_hard.read_questions, excerpt("arena_hard/v2.0_questions.jsonl")),
    "arena-hard answers": (read_answer_file, excerpt("arena_hard/v2.0_answers.jsonl")),
    "arena-hard 0.1 answers": (read_answer_file, excerpt("arena_hard/v0.1_answers.jsonl")),
    "arena-hard judgments": (read_judgment_file, [ARENA, ARENA | {"uid": "v"}]),
    "mt-bench questions": (mt_bench.read_questions, excerpt("mt_bench/questions.jsonl")),
    "mt-bench answers": (read_answer_file, excerpt("mt_bench/answers.jsonl")),
    "mt-bench judgments": (read_judgment_file, excerpt("mt_bench/judgments.jsonl")),
    "wildbench questions": (wildbench.read_questions, [TASK, TASK | {"session_id": "t"}]),
    "wildbench grades": (wildbench.read_judgments, [
        {"session_id": s, "model_test": "m", "score": "7", "parsed_result": {"score": "7"}} for s in "st"
    ]),
    "wildbench pairs": (read_wildbench_pairs, [
        {"session_id": s, "model_A": "m", "model_B": "r", "winner": "m", "extent": 1} for s in "st"
    ]),
    "alpaca-eval judgments": (read_judgment_file, [ANNOTATION, ANNOTATION | {"instruction": "k"}]),
    "games": (read_judgment_file, [GAME, GAME | {"question_id": "r", "order": 1, "score": 0.5}]),
    "grades": (read_judgment_file, [GRADE, GRADE | {"question_id": "r", "score": 4.0}]),
    "dialogues": (read_dialogues, [
        {"prompt": "p", "response": "r"}, {"prompt": "p", "response": "r", "weight": 1.5},
    ]),
}  # fmt: skip
SCALES = {"mt-bench": (1, 10), "wildbench": (1, 10), "creative-writing-bench-v3": (0, 20)}


def as_jsonl(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def scored_right(item: Any) -> None:
    """A score is there exactly if its status says so, and on its scale if it counts."""
    if isinstance(item, judgments.Game):
        assert (item.score is None) == (item.status != "ok")
        assert item.score is None or 0 <= item.score <= 1
    if isinstance(item, judgments.Grade):
        assert (item.score is None) == (item.status in ("failed", "unparsable"))
        low, high = SCALES.get(item.judge_identity.get("benchmark"), (-math.inf, math.inf))
        assert item.status != "ok" or low <= item.score <= high


def untouched_lines_stay(read: Callable[[Path], Any], rows: list[Any]) -> Callable[..., None]:
    """Every line that is still there gives what it gave alone; scores fit their status and scale."""
    lines = [as_jsonl([row]).rstrip(b"\n") for row in rows]

    @cache
    def given(line: bytes) -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "input.jsonl"
            file.write_bytes(line + b"\n")
            return [nameless(item) for item in read(file)]

    def check(content: bytes, found: Any) -> None:
        assert found, "an accepted file holds something"
        for item in found:
            scored_right(item)
        seen = [nameless(item) for item in found]
        for line in lines:
            if line in content.split(b"\n"):
                assert all(item in seen for item in given(line)), line

    return check


def nameless(item: Any) -> Any:
    """Without the place in the file."""
    if not hasattr(item, "source"):
        return item
    return item._replace(source="") if hasattr(item, "_replace") else replace(item, source="")


def row_kinds() -> list[Kind]:
    kinds = [
        Kind(name, "jsonl", as_jsonl(rows), read, alone("input.jsonl"), untouched_lines_stay(read, rows))
        for name, (read, rows) in ROWS.items()
    ]  # fmt: skip

    def read_pieces(file: Path) -> Any:
        return creative_writing.read_judgments(file, CRITERIA)

    def check(_: bytes, found: Any) -> None:
        for item in found:
            scored_right(item)

    run = json.dumps(RUN).encode()
    return [
        *kinds,
        Kind("creative writing run", "json", run, read_pieces, alone("run.json"), check),
    ]


# Recipes


def no_key_twice(content: bytes) -> bool:
    def walk(node: Any, above: tuple[int, ...] = ()) -> bool:
        if id(node) in above:
            return True
        inner = (*above, id(node))
        if isinstance(node, yaml.MappingNode):
            names = [key.value for key, _ in node.value]
            return len(set(map(str, names))) == len(names) and all(
                walk(v, inner) for _, v in node.value
            )
        return not isinstance(node, yaml.SequenceNode) or all(walk(n, inner) for n in node.value)

    return walk(yaml.compose(content.decode("utf-8-sig")))


def says(text: Any, value: Any) -> bool:
    """Whether a YAML scalar, as it is written, is that value."""
    if isinstance(value, list | tuple):
        return isinstance(text, list) and all(map(says, text, value)) and len(text) == len(value)
    if value is None:
        return text in ("", "~", "null", "Null", "NULL")
    if isinstance(value, bool):
        return text.lower() in (("true", "yes", "on") if value else ("false", "no", "off"))
    if isinstance(value, int):
        return re.fullmatch(r"[-+]?[0-9]+", text) is not None and int(text) == value
    if isinstance(value, float):
        return re.fullmatch(r"[-+.0-9eE]+", text) is not None and float(text) == value
    return text == value


def as_written(text: str) -> Any:
    return yaml.load(text, Loader=yaml.BaseLoader)


def recipe_says_what_the_file_says(content: bytes, recipe: Recipe) -> None:
    """Every key of the file has its value in the recipe, and everything else its default."""
    assert no_key_twice(content), "a key stands twice"
    given = flatten(as_written(content.decode("utf-8-sig")))
    held = flatten(recipe.as_dict())
    for key, text in given.items():
        assert key in held or text in ("", "~", "null"), key
        assert key not in held or says(text, held[key]), (key, text, held[key])
    for key in held.keys() - given.keys():
        assert held[key] == DEFAULTS.get(key), key


RECIPE = b"""\
model:
  from_scratch: {tokenizer_kind: byte_bpe, vocab_size: 300, d_model: 16, n_layers: 1, n_heads: 2}
data:
  train: train.jsonl
  columns: {prompt: question, response: answer}
  max_prompt_length: 64
  canvas_length: 32
objective: {kind: mixed, ctc_weight: 0.5, slack_ratio: [0.0, 0.5], eps: 1e-3}
training: {steps: 3, batch_size: 2, learning_rate: 1.0e-3, bf16: false, seed: 0, report_to: none}
"""
DEFAULTS: dict[str, Any] = {
    f"{block}.{entry.name}": list(entry.default) if isinstance(entry.default, tuple) else entry.default
    for block, kind in {
        "model": config.ModelConfig, "model.from_scratch": config.FromScratchConfig, "model.lora": config.LoraRecipe,
        "data": config.DataConfig, "data.columns": config.ColumnsConfig, "objective": config.ObjectiveConfig,
        "training": config.TrainingConfig,
    }.items()
    for entry in fields(kind)
    if entry.default is not MISSING
}  # fmt: skip


def read_override(file: Path) -> Recipe:
    """The file's text is one ``--set`` argument to a valid recipe beside it."""
    recipe = file.with_name("recipe.yaml")
    recipe.write_bytes(RECIPE)
    try:
        text = file.read_bytes().decode("utf-8", "surrogateescape")
        return load_recipe(recipe, [text])
    finally:
        recipe.unlink()


def override_is_set(content: bytes, recipe: Recipe) -> None:
    """The recipe holds what the override says, and beside it what its file says."""
    key, _, text = content.decode("utf-8", "surrogateescape").partition("=")
    key = key.strip()
    is_text = key in TEXTS and (key in REQUIRED_TEXTS or text.strip() != "null")
    said = text if is_text else as_written(text)
    held, before = flatten(recipe.as_dict()), flatten(as_written(RECIPE.decode()))
    given = flatten(said, where=key) if isinstance(said, dict) else {key: said}
    for name, value in given.items():
        assert name in held or value in (None, "", "~", "null"), name
        same = held.get(name) == text if is_text else says(value or "", held.get(name))
        assert name not in held or same, (name, value, held[name])
    for name in held.keys() - given.keys():
        if name in before and not name.startswith(f"{key}."):
            assert says(before[name], held[name]), name


REQUIRED_TEXTS = {
    "data.train",
    "data.split",
    "data.eval_split",
    "data.columns.prompt",
    "data.columns.response",
}
TEXTS = {
    *REQUIRED_TEXTS, "data.eval", "data.subset", "data.columns.messages", "model.path", "model.adapter"
}  # fmt: skip
"""Keys whose value is taken as it stands, whatever YAML would make of it; of some ``null`` is none."""
OVERRIDES = (
    b"training.steps=100", b"objective.slack_ratio=[0.1, 0.2]", b"data.train=other.jsonl",
    b"training.learning_rate=1e-5",
    b"objective={kind: ce}", b"training.bf16=true", b"model.from_scratch.n_heads=4",
)  # fmt: skip


def recipe_kinds() -> list[Kind]:
    published = [
        Kind(f"recipe {name}", "yaml", (RECIPES / f"{name}.yaml").read_bytes(), load_recipe,
             alone("recipe.yaml"), recipe_says_what_the_file_says)
        for name in ("llada-8b-lora-slack-ctc", "tiny-gsm8k")
    ]  # fmt: skip
    overrides = [
        Kind(
            f"--set {text.decode()}",
            "text",
            text,
            read_override,
            alone("argument"),
            override_is_set,
        )
        for text in OVERRIDES
    ]
    return [
        *overrides,
        Kind(
            "recipe",
            "yaml",
            RECIPE,
            load_recipe,
            alone("recipe.yaml"),
            recipe_says_what_the_file_says,
        ),
        *published,
    ]


# Model folders

IDS = torch.tensor([[5, 9, 17, 3]])


@cache
def _whole_model() -> Path:
    """A toy LLaDA with its adapter, in a folder that lasts as long as the process."""
    folder = Path(tempfile.mkdtemp(prefix="hostile-model-"))
    tokenizer = train_tokenizer(["hello world 1 2 3"] * 3, vocab_size=300, kind="byte_bpe")
    shape = LLaDAConfig(
        vocab_size=len(tokenizer), d_model=16, n_layers=1, n_heads=2, mlp_hidden_size=32,
        max_sequence_length=64,
    )  # fmt: skip
    model = new_model(shape, tokenizer, generator_seed=0)
    save_model(model, folder / "model", max_shard_size=20_000)
    adapted = new_adapter(model, rank=2, alpha=4.0, dropout=0.0)
    adapted.model.save_pretrained(str(folder / "adapter"))
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    for name in weights:
        weights[name] = torch.full_like(weights[name], 0.1)
    save_file(weights, folder / "adapter" / "adapter_model.safetensors")
    return folder


def logits_of(loaded: Any) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(IDS).logits


def model_folder(file: str) -> Callable[[Path], Path]:
    def place(folder: Path) -> Path:
        shutil.copytree(_whole_model(), folder / "whole", dirs_exist_ok=True)
        return folder / "whole" / file

    return place


def same_numbers_unless_asked(content: bytes, loaded: Any) -> None:
    """The logits are those of the valid folder, or the changed keys of the configuration are obeyed."""
    logits = logits_of(loaded)
    valid = _valid_config()
    given = json.loads(content.decode("utf-8-sig"))
    asked = {
        key: given.get(key, "left out")
        for key in given.keys() | valid.keys()
        if given.get(key, "left out") != valid.get(key, "left out")
    }
    if not asked.keys() & vars(LLaDAConfig()).keys():
        torch.testing.assert_close(logits, _valid_logits(), rtol=0, atol=0)
    for key, value in asked.items():
        if value != "left out" and key in ("rope_theta", "rms_norm_eps", "n_heads", "n_kv_heads"):
            assert getattr(loaded.model.config, key) == value


@cache
def _valid_config() -> dict[str, Any]:
    return json.loads((_whole_model() / "model" / "config.json").read_text())


@cache
def _valid_logits() -> torch.Tensor:
    return logits_of(load_model(_whole_model() / "model"))


@cache
def _adapted_logits() -> torch.Tensor:
    whole = _whole_model()
    return logits_of(load_model(whole / "model", adapter=whole / "adapter"))


def same_numbers(_: bytes, loaded: Any) -> None:
    torch.testing.assert_close(logits_of(loaded), _valid_logits(), rtol=0, atol=0)


def ids_have_rows(_: bytes, loaded: Any) -> None:
    """No id of the tokenizer lies outside the embedding."""
    rows = len(loaded.model.get_input_embeddings().weight)
    ids = loaded.tokenizer("hello world 1 2 3 \u00e9", add_special_tokens=False)["input_ids"]
    assert all(0 <= one < rows for one in [*ids, loaded.mask_id, loaded.slack_id, *loaded.eos_ids])


def adapter_is_obeyed(content: bytes, loaded: Any) -> None:
    given = json.loads(content.decode("utf-8-sig"))
    valid = json.loads((_whole_model() / "adapter" / "adapter_config.json").read_text())
    if {k for k in given.keys() | valid.keys() if given.get(k) != valid.get(k)} <= {
        "base_model_name_or_path", "revision", "inference_mode", "task_type", "peft_version", "lora_dropout",
    }:  # fmt: skip
        torch.testing.assert_close(logits_of(loaded), _adapted_logits(), rtol=0, atol=0)


def read_model(file: Path) -> Any:
    loaded = load_model(file.parent)
    encode_prompt(loaded.tokenizer, [{"role": "user", "content": "hello world"}])
    return loaded


def read_adapter(file: Path) -> Any:
    return load_model(file.parents[1] / "model", adapter=file.parent)


def model_kinds() -> list[Kind]:
    whole = _whole_model()

    def kind(
        file: str, syntax: Syntax, read: Callable[..., Any], check: Callable[..., None]
    ) -> Kind:
        return Kind(file, syntax, (whole / file).read_bytes(), read, model_folder(file), check, 20)

    return [
        kind("model/config.json", "json", read_model, same_numbers_unless_asked),
        kind("model/tokenizer.json", "json", read_model, ids_have_rows),
        kind("model/tokenizer_config.json", "json", read_model, ids_have_rows),
        kind("model/model.safetensors.index.json", "json", read_model, same_numbers),
        kind("adapter/adapter_config.json", "json", read_adapter, adapter_is_obeyed),
    ]


# Results for a report


def estimate(value: float | None) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value, "num_scored": 8, "num_total": 9}


def _results() -> dict[str, Any]:
    setting = {"arm": "a", "temperature": 0.0, "steps": 8, "kind": "none", "rate": 0.0}
    shifted = {"kind": "shift", "rate": 0.1}
    dose = {"asked": 9, "displaced": 8, "impossible": 1, "lost": 0, "committed": 80}
    quality = setting | {"metrics": {"quality": estimate(0.5), "words": estimate(None)}}
    win = (
        setting | shifted | {"against": "self", "p_value": 0.01, "p_adjusted": None} | estimate(0.4)
    )
    cells = [
        {"token": "a", "state": "token", "new": True},
        {"token": "", "state": "masked", "new": False},
    ]
    return {
        "title": "t", "summary": ["s"], "warnings": [],
        "run": {"slackdlm": "1", "created": "now", "python": "3", "torch": "2", "hardware": "h", "git": None,
                "seconds": {"training": 1.5}, "config": {"model": {"layers": 4}}},
        "arms": [{"name": "a", "label": "A", "description": "d"}],
        "quality": [
            quality | {"tokens_per_step": 6.0, "per_training_seed": {"quality": [0.5, None]}},
            quality | shifted | {"dose": dose},
        ],
        "source": {"metrics": {"words": estimate(27.0)}},
        "win_rates": [win],
        "training": [{"arm": "a", "seed": 0, "points": [
            {"step": 1, "loss": 3.0, "eval_ce": None, "eval_objective": 2.5}]}],
        "replays": [setting | {"prompt": "p", "text": "a b", "frames": [{"step": 0, "cells": cells}]}],
        "samples": [{"prompt": "p", "arm": "a", "text": "a", "canvas": "a <slack>", "verdict": "ok"}],
    }  # fmt: skip


def read_results(file: Path) -> tuple[Any, str]:
    """The results and the page without its plots."""
    results = read_result(file)
    return results, render(results, [])


def page_is_safe_and_right(content: bytes, read: tuple[Any, str]) -> None:
    """No text of the file is markup, and the numbers kept are those of the file."""
    results, page = read
    assert "\x1b" not in page
    given = json.loads(content.decode("utf-8-sig"))
    kept = Result.model_validate(given)  # as far as the record knows the keys
    assert results.content() == clean(kept.content())


def result_kinds() -> list[Kind]:
    content = json.dumps(_results()).encode()
    check = page_is_safe_and_right
    return [Kind("results.json", "json", content, read_results, alone("results.json"), check)]


def all_kinds() -> list[Kind]:
    return [*row_kinds(), *recipe_kinds(), *model_kinds(), *result_kinds()]
