import copy

import pytest

from slackdlm.report import write_report
from slackdlm.study.result import Result


def estimate(value, width=0.02, num_scored=64):
    ends = dict.fromkeys(("value", "low", "high"))
    if value is not None:
        ends = {"value": value, "low": value - width, "high": value + width}
    return ends | {"num_scored": 0 if value is None else num_scored, "num_total": 64}


def cell(token, state="token", new=False):
    return {"token": token, "state": state, "new": new}


def setting(arm, kind="none", rate=0.0, temperature=0.0, steps=8):
    return {"arm": arm, "temperature": temperature, "steps": steps, "kind": kind, "rate": rate}


def quality_row(setting, value):
    names = {"quality": value, "coverage": 0.8, "words": 12.5, "adjectives": 0.12}
    metrics = {name: estimate(number) for name, number in names.items()}
    metrics["distinct_bigrams"] = estimate(120.0) | {"low": None, "high": None}
    metrics["log_likelihood"] = estimate(-2.1, num_scored=40)
    return setting | {
        "tokens_per_step": 48 / setting["steps"],
        "metrics": metrics,
        "per_training_seed": {"quality": [value, None]},
        "dose": {"asked": 10, "displaced": 8, "impossible": 1, "lost": 1, "committed": 80},
    }


def win_row(setting, against, value, p_adjusted):
    tested = {"against": against, "p_value": 0.01, "p_adjusted": p_adjusted}
    return setting | estimate(value) | tested


def build():
    arms = ("base", "slack_ctc")
    probed = [
        setting(arm, kind, rate)
        for arm in arms
        for kind in ("shift", "substitute")
        for rate in (0.01, 0.1)
    ]
    quality = [
        quality_row(setting(arm, temperature=temperature, steps=steps), 0.5 + 0.01 * steps)
        for arm in arms
        for temperature in (0.0, 1.0)
        for steps in (8, 16)
    ]
    quality += [quality_row(where, 0.4 - where["rate"]) for where in probed]
    wins = [win_row(setting("slack_ctc"), "base", 0.75, 0.001)]
    wins += [win_row(where, "self", 0.5 - where["rate"], 0.2) for where in probed]
    frames = [
        {"step": 0, "cells": [cell("", "masked"), cell("", "masked"), cell("", "masked")]},
        {"step": 1, "cells": [cell("a", new=True), cell("<slack>", "slack"), cell("", "masked")]},
        {"step": 2, "cells": [cell("a"), cell("<slack>", "slack"), cell("b", "displaced", True)]},
    ]
    return {
        "title": "A toy study",
        "summary": ["It works."],
        "warnings": ["It is a toy."],
        "run": {
            "slackdlm": "0.1.0",
            "created": "2026-01-01T00:00:00Z",
            "hardware": "2 cores",
            "git": None,
            "seconds": {"training": 12.0},
            "config": {"model": {"layers": 4, "adapter": None}, "seeds": (0, 1)},
        },
        "arms": [
            {"name": "base", "label": "pre-trained", "description": "before fine-tuning"},
            {"name": "slack_ctc", "label": "slack-CTC", "description": "the method"},
        ],
        "quality": quality,
        "source": {"metrics": {"words": estimate(27.0), "coverage": estimate(1.0, 0.0)}},
        "win_rates": wins,
        "training": [
            {"arm": arm, "seed": 0, "points": [{"step": n, "loss": 3.0 - n / 10} for n in range(5)]}
            for arm in arms
        ],
        "replays": [
            {"arm": arm, "prompt": "tell", "kind": "none", "rate": 0.0, "text": "a b"}
            | {"frames": frames}
            for arm in arms
        ],
        "samples": [
            {"prompt": "tell", "arm": arm, "text": "a b", "canvas": "a <slack> b", "verdict": "ok"}
            for arm in arms
        ],
    }


RESULTS = build()

SECTIONS = "summary warnings arms quality win_rates training replays samples".split()
EMPTY = {section: [] for section in SECTIONS} | {
    "title": "",
    "run": {"slackdlm": "0.1.0", "config": {}},
    "source": {"metrics": {}},
}


@pytest.fixture
def results():
    """What ``results.json`` holds, to be changed."""
    return copy.deepcopy(RESULTS)


@pytest.fixture
def empty():
    return copy.deepcopy(EMPTY)


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """The page of one whole report, plots and all."""
    result = Result.model_validate(RESULTS)
    return write_report(result, tmp_path_factory.mktemp("report") / "new")
