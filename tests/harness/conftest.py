"""A byte-level toy model, and task files with made-up data in the layouts in which the benchmarks are published."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

QUESTION = "Ann has {0} pens and buys {1} more. How many pens has she now?"
ANSWER = "Ann has {0} pens and buys {1}, so she has {0}+{1}=<<{0}+{1}={2}>>{2}.\n#### {2}"
PAIRS = [(10, 90), (7, 5), (1000, 1), (3, 4), (20, 30), (8, 8)]


def gsm8k_rows() -> list[dict[str, str]]:
    """The columns of GSM8K."""
    return [
        {"question": QUESTION.format(a, b), "answer": ANSWER.format(a, b, a + b)} for a, b in PAIRS
    ]


def mmlu_rows() -> list[dict[str, Any]]:
    """The columns of MMLU."""
    return [
        {
            "question": f" What is {a} plus {b}? ",
            "subject": "elementary_mathematics",
            "choices": [str(a + b + (i - a) % 4) for i in range(4)],
            "answer": a % 4,
        }
        for a, b in PAIRS
    ]


def gpqa_rows() -> list[dict[str, str]]:
    """The columns of GPQA that its tasks read."""
    return [
        {
            "Question": f"What is {a} plus {b}?",
            "Correct Answer": str(a + b),
            **{f"Incorrect Answer {i}": str(a + b + i) for i in (1, 2, 3)},
        }
        for a, b in PAIRS
    ]


def mbpp_rows() -> list[dict[str, Any]]:
    """The columns of MBPP."""
    return [
        {
            "task_id": i,
            "text": f"Write a function to add {a} to a number.",
            "code": f"def add(x):\r\n  return x + {a}",
            "test_list": [f"assert add({b + j}) == {a + b + j}" for j in range(3)],
            "test_setup_code": "",
            "challenge_test_list": [],
        }
        for i, (a, b) in enumerate(PAIRS)
    ]


@pytest.fixture(scope="session")
def speaker():
    """A random toy LLaDA that can read and write any text."""
    from toy_models import random_llada

    from slackdlm.models.tokenizer import train_tokenizer

    texts = [text for row in gsm8k_rows() for text in row.values()]
    tokenizer = train_tokenizer(texts, vocab_size=300, kind="byte_bpe")
    return random_llada(
        tokenizer, d_model=32, n_layers=1, mlp_hidden_size=64, max_length=512, seed=5
    )


@pytest.fixture
def write_task(tmp_path: Path) -> Callable[..., Path]:
    """Writes a task file of lm-eval with its data, and gives its folder."""

    def write(name: str, rows: list[dict[str, Any]], **config: Any) -> Path:
        folder = tmp_path / "tasks"
        folder.mkdir(exist_ok=True)
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(data)}},
            "test_split": "test",
            **config,
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
        return folder

    return write


@pytest.fixture
def gsm8k_task(write_task) -> Path:
    """The GSM8K protocol on made-up questions."""
    return write_task(
        "toy_gsm8k",
        gsm8k_rows(),
        fewshot_split="test",
        output_type="generate_until",
        doc_to_text="Question: {{question}}\nAnswer:",
        doc_to_target="{{answer}}",
        num_fewshot=0,
        generation_kwargs={"until": ["Question:"], "do_sample": False, "temperature": 0.0},
        filter_list=[
            {
                "name": "strict-match",
                "filter": [
                    {"function": "regex", "regex_pattern": r"#### (\-?[0-9\.\,]+)"},
                    {"function": "take_first"},
                ],
            },
            {
                "name": "flexible-extract",
                "filter": [
                    {"function": "regex", "group_select": -1, "regex_pattern": "(-?[0-9]+)"},
                    {"function": "take_first"},
                ],
            },
        ],
        metric_list=[
            {
                "metric": "exact_match",
                "aggregation": "mean",
                "higher_is_better": True,
                "regexes_to_ignore": [r"(?s).*#### "],
            }
        ],
    )


@pytest.fixture
def rows() -> dict[str, list[dict[str, Any]]]:
    """Made-up data by benchmark."""
    return {"gsm8k": gsm8k_rows(), "mmlu": mmlu_rows(), "gpqa": gpqa_rows(), "mbpp": mbpp_rows()}
