import copy

import pytest

from slackdlm.report import write_report


def estimate(value, width=0.02, num_scored=64):
    return {
        "value": value,
        "low": None if value is None else value - width,
        "high": None if value is None else value + width,
        "num_scored": num_scored if value is not None else 0,
        "num_total": 64,
    }


def cell(token, state="token", new=False):
    return {"token": token, "state": state, "new": new}


def quality_row(arm, temperature, steps, kind, rate, value):
    names = {"quality": value, "coverage": 0.8, "words": 12.5, "adjectives": 0.12}
    metrics = {name: estimate(number) for name, number in names.items()}
    metrics["distinct_bigrams"] = estimate(120.0) | {"low": None, "high": None}
    metrics["log_likelihood"] = estimate(-2.1, num_scored=40)
    return {
        "arm": arm,
        "temperature": temperature,
        "steps": steps,
        "tokens_per_step": 48 / steps,
        "kind": kind,
        "rate": rate,
        "metrics": metrics,
        "per_training_seed": {"quality": [value, None]},
        "dose": {"asked": 10, "displaced": 8, "impossible": 1, "lost": 1, "committed": 80},
    }


def win_row(arm, against, kind, rate, value, p_adjusted):
    return estimate(value) | {
        "arm": arm,
        "against": against,
        "temperature": 0.0,
        "steps": 8,
        "kind": kind,
        "rate": rate,
        "p_value": 0.01,
        "p_adjusted": p_adjusted,
    }


def build():
    arms = ("base", "slack_ctc")
    quality = [
        quality_row(arm, temperature, steps, "none", 0.0, 0.5 + 0.01 * steps)
        for arm in arms
        for temperature in (0.0, 1.0)
        for steps in (8, 16)
    ]
    quality += [
        quality_row(arm, 0.0, 8, kind, rate, 0.4 - rate)
        for arm in arms
        for kind in ("shift", "substitute")
        for rate in (0.01, 0.1)
    ]
    wins = [win_row("slack_ctc", "base", "none", 0.0, 0.75, 0.001)]
    wins += [
        win_row(arm, "self", kind, rate, 0.5 - rate, 0.2)
        for arm in arms
        for kind in ("shift", "substitute")
        for rate in (0.01, 0.1)
    ]
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
            "python": "3.11",
            "torch": "2.13.0",
            "hardware": "2 cores",
            "git": None,
            "seconds": {"training": 12.0},
            "config": {"model": {"layers": 4, "adapter": None}, "seeds": [0, 1]},
        },
        "arms": [
            {"name": "base", "label": "pre-trained", "description": "before fine-tuning"},
            {"name": "slack_ctc", "label": "slack-CTC", "description": "the method"},
        ],
        "quality": quality,
        "source": {"metrics": {"words": estimate(27.0), "coverage": estimate(1.0, 0.0)}},
        "win_rates": wins,
        "training": [
            {
                "arm": arm,
                "seed": 0,
                "points": [
                    {"step": step, "loss": 3.0 - step / 10, "eval_ce": None, "eval_objective": None}
                    for step in range(5)
                ],
            }
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

EMPTY = {
    "title": "",
    "summary": [],
    "warnings": [],
    "run": {"slackdlm": "0.1.0", "created": "now", "seconds": {}, "config": {}},
    "arms": [],
    "quality": [],
    "source": {"metrics": {}},
    "win_rates": [],
    "training": [],
    "replays": [],
    "samples": [],
}


@pytest.fixture
def results():
    return copy.deepcopy(RESULTS)


@pytest.fixture
def empty():
    return copy.deepcopy(EMPTY)


@pytest.fixture(scope="session")
def report(tmp_path_factory):
    """The page of one whole report, plots and all."""
    return write_report(RESULTS, tmp_path_factory.mktemp("report") / "new")
