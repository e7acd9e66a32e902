import itertools
from typing import Any

import oracles
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import slackdlm
from slackdlm import collapse
from slackdlm.errors import ConfigError

SLACK = 3
canvases = st.lists(st.integers(0, SLACK), max_size=12)


def test_slack_is_dropped_and_repeats_are_kept():
    assert collapse([1, SLACK, 0, 0, SLACK, 0], slack_id=SLACK) == [1, 0, 0, 0]


def test_graves_loses_the_trailing_zeros_that_slack_keeps():
    one_thousand = [1, 0, 0, 0]
    assert collapse(one_thousand, slack_id=SLACK) == one_thousand
    assert collapse(one_thousand, slack_id=SLACK, mode="graves") == [1, 0]


def test_graves_keeps_repeats_that_slack_separates():
    assert collapse([0, SLACK, 0], slack_id=SLACK, mode="graves") == [0, 0]


@pytest.mark.parametrize("mode", ["slack", "graves"])
@pytest.mark.parametrize("canvas", [[], [SLACK], [SLACK] * 4])
def test_an_empty_or_all_slack_canvas_is_an_empty_response(mode: Any, canvas: list[int]):
    assert collapse(canvas, slack_id=SLACK, mode=mode) == []


@pytest.mark.parametrize("mode", ["slack", "graves"])
@given(canvas=canvases)
def test_it_equals_the_oracle(mode: Any, canvas: list[int]):
    assert collapse(canvas, slack_id=SLACK, mode=mode) == oracles.collapse(canvas, SLACK, mode)


@given(canvas=canvases)
def test_collapsing_twice_changes_nothing_more(canvas: list[int]):
    once = collapse(canvas, slack_id=SLACK)
    assert collapse(once, slack_id=SLACK) == once


def test_every_response_comes_from_one_canvas_for_each_choice_of_places():
    canvases_of: dict[tuple[int, ...], int] = {}
    for canvas in itertools.product(range(SLACK + 1), repeat=4):
        response = tuple(collapse(canvas, slack_id=SLACK))
        canvases_of[response] = canvases_of.get(response, 0) + 1
    assert {len(r): n for r, n in canvases_of.items()} == {0: 1, 1: 4, 2: 6, 3: 4, 4: 1}
    assert all(n == [1, 4, 6, 4, 1][len(r)] for r, n in canvases_of.items())


@pytest.mark.usefixtures("unchecked_shapes")
def test_tensors_and_generators_of_ids_are_taken():
    found = collapse(torch.tensor([1, SLACK, 2]), slack_id=SLACK)
    assert found == [1, 2]
    assert all(type(token) is int for token in found)
    assert collapse((x for x in (1, SLACK)), slack_id=SLACK) == [1]


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_unknown_mode_is_refused():
    mode: Any = "merge"
    with pytest.raises(ConfigError, match="unknown mode 'merge'; use 'slack' or 'graves'"):
        collapse([1], slack_id=SLACK, mode=mode)


def test_the_public_name_is_the_function_whatever_was_imported_before():
    assert callable(slackdlm.collapse)
    with pytest.raises(AttributeError, match="module 'slackdlm' has no attribute 'nonsense'"):
        _ = slackdlm.nonsense
