"""The file that the demo and the probe write: what is read back, made drawable and refused."""

import json

import pytest

from slackdlm.errors import DataError
from slackdlm.study.result import Result, read_result

FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6, "num_scored": 3, "num_total": 4}
SETTING = {"arm": "a", "temperature": 0.0, "steps": 8, "kind": "none", "rate": 0.0}


@pytest.fixture
def content():
    cell = {"token": "x", "state": "token", "new": False}
    replay = {"arm": "a", "prompt": "p", "kind": "none", "rate": 0.0, "text": "x"}
    return {
        "title": "t",
        "summary": [],
        "warnings": [],
        "run": {"slackdlm": "1", "config": {"sizes": [1, 2]}, "seconds": {"x": 1}},
        "arms": [],
        "quality": [SETTING | {"metrics": {"words": dict(FIGURE)}}],
        "source": {"metrics": {}},
        "win_rates": [SETTING | FIGURE | {"against": "b", "p_value": 0.1, "p_adjusted": None}],
        "training": [],
        "replays": [replay | {"frames": [{"step": 0, "cells": [cell]}]}],
        "samples": [],
    }


def read(tmp_path, content) -> Result:
    (tmp_path / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return read_result(tmp_path)


def test_a_file_is_read_back_as_it_was_written(tmp_path, content):
    result = read(tmp_path, content)
    assert result.content() == content
    assert read(tmp_path, result.content()) == result
    assert read_result(tmp_path / "results.json") == result


def test_text_is_made_drawable(tmp_path, content):
    content["title"] = "a\0b\ud800c\nd"
    content["run"]["config"] = {"x\x1b": "\x1b"}
    result = read(tmp_path, content)
    assert result.title == "a\ufffdb\ufffdc\nd"
    assert result.run.config == {"x\ufffd": "\ufffd"}


MISSING = object()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("win_rates", MISSING, "win_rates is missing"),
        ("win_rates", None, "win_rates: expected a list, got nothing"),
        ("win_rates 0 p_adjusted", MISSING, r"win_rates\[0\].p_adjusted is missing"),
        ("win_rates 0 value", -0.1, r"win_rates\[0\].value: expected .* to 0, got -0.1"),
        ("quality 0 steps", "8", r"quality\[0\].steps: expected a whole number, got '8'"),
        ("quality 0 rate", 1.5, r"quality\[0\].rate: expected .* to 1, got 1.5"),
        ("quality 0 metrics words", [], "metrics.words: expected an object, got list"),
        ("quality 0 metrics words value", 1e300, "words.value: expected .*got 1e"),
        ("replays 0 frames 0 cells 0 new", 1, "new: expected true or false, got 1"),
        ("replays 0 frames 0 cells 0 state", "melted", "state: expected .* got 'melted'"),
        ("run seconds", {"x": True}, "run.seconds.x: expected a number, got True"),
    ],
)
def test_a_spoilt_file_is_one_line_that_names_the_key(tmp_path, content, path, value, message):
    *keys, last = [int(key) if key.isdigit() else key for key in path.split()]
    place = content
    for key in keys:
        place = place[key]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    with pytest.raises(DataError, match=rf"results\.json: results: .*{message}") as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


def test_the_file_of_another_command_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no result of slackdlm demo or probe"):
        read(tmp_path, {"lines": [], "judges": []})
