from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.sampling.config import deciding, recorded
from slackdlm.sampling.sampler import SamplerConfig

PLAIN = SamplerConfig(canvas_length=8)
OTHER = {
    "canvas_length": 9,
    "steps": 4,
    "block_length": 4,
    "temperature": 0.5,
    "remasking": "entropy",
    "guidance": 1.5,
    "forbid_end_of_text": True,
    "delay_end": True,
    "delay_slack": True,
    "spacing": 2,
    "early_stop": True,
    "refill": 3,
    "cache": "dual",
    "collapse": "graves",
    "seed": 7,
    "batch_size": 2,
    "trace": True,
}
EFFECTIVE = sorted(OTHER.keys() - {"batch_size", "trace"})
THRESHOLD = SamplerConfig(canvas_length=8, remasking="threshold", bound=0.9)


def test_every_setting_is_tried_here():
    assert OTHER.keys() | {"bound"} == {field.name for field in fields(SamplerConfig)}


def test_the_defaults_that_journals_count_on_are_these():
    """A changed default would make old answers pass for new ones: add a setting instead."""
    assert recorded(PLAIN) == {
        "canvas_length": 8,
        "steps": None,
        "block_length": None,
        "temperature": 0.0,
        "remasking": "low_confidence",
        "bound": None,
        "guidance": 0.0,
        "forbid_end_of_text": False,
        "delay_end": False,
        "delay_slack": False,
        "spacing": 1,
        "early_stop": False,
        "refill": 0,
        "cache": "none",
        "collapse": "slack",
        "seed": 0,
    }
    assert deciding(recorded(PLAIN)) == {"canvas_length": 8}


@given(names=st.sets(st.sampled_from(sorted(OTHER))))
def test_what_decides_is_what_differs_from_the_default(names: set[str]):
    config = replace(PLAIN, **{name: OTHER[name] for name in names})
    expected = {name: OTHER[name] for name in names & set(EFFECTIVE)}
    assert deciding(recorded(config)) == {"canvas_length": 8} | expected


def test_a_bound_decides():
    expected = {"canvas_length": 8, "remasking": "threshold", "bound": 0.9}
    assert deciding(recorded(THRESHOLD)) == expected


@pytest.mark.parametrize("name", EFFECTIVE)
def test_settings_of_a_file_are_told_apart_whether_or_not_they_name_the_defaults(name: str):
    old = {
        key: value
        for key, value in recorded(PLAIN).items()
        if key != name or key == "canvas_length"
    }
    assert deciding(old) == deciding(recorded(PLAIN))
    assert deciding(old | {name: OTHER[name]}) != deciding(recorded(PLAIN))


def test_a_setting_this_version_does_not_know_decides():
    assert deciding(recorded(PLAIN) | {"unheard_of": 1}) != deciding(recorded(PLAIN))
