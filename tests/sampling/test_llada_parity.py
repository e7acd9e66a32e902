"""Golden outputs of LLaDA's published generate.py, made by llada_parity.py beside this file."""

import json

import pytest
from llada_parity import GOLDEN, ours, toy_model

CASES = json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=[str(case["number"]) for case in CASES])
def test_it_equals_llada_token_for_token(case):
    assert ours(toy_model(case["number"], case["sharpness"]), case) == case["canvases"]


def test_the_golden_cases_reach_every_setting():
    for name, values in {
        "temperature": {0.0, 1.0},
        "guidance": {0.0, 0.7, 2.0},
        "remasking": {"low_confidence", "random"},
        "forbid_end_of_text": {True, False},
        "delay_end": {True, False},
    }.items():
        assert {case[name] for case in CASES} == values
    assert any(case["block_length"] < case["canvas_length"] for case in CASES)
    assert any(len({len(prompt) for prompt in case["prompts"]}) > 1 for case in CASES)
