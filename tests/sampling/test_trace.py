import json

import pytest

from slackdlm.errors import DataError
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.sampling.trace import read_steps, trace_row

PROMPTS = ["tell twice cat", "tell thrice red boat"]


@pytest.fixture
def answers(toy):
    config = SamplerConfig(
        canvas_length=16, block_length=8, steps=6, temperature=1.0, early_stop=True, trace=True
    )
    return Sampler(toy, config, ShiftIntervention(0.4, seed=0)).generate(PROMPTS * 3)


def test_a_trace_gives_the_steps_back(answers):
    rows = [json.loads(json.dumps(trace_row(answer))) for answer in answers]
    assert [row["canvas"] for row in rows] == [answer.canvas for answer in answers]
    for row, answer in zip(rows, answers, strict=True):
        for read, commits in zip(read_steps(row), answer.steps, strict=True):
            assert [c._replace(confidence=0) for c in read] == [
                c._replace(confidence=0) for c in commits
            ]
            assert all(c.confidence == float(f"{c.confidence:.4g}") for c in read)
            for found, commit in zip(read, commits, strict=True):
                assert found.confidence == pytest.approx(commit.confidence, rel=1e-3)
    assert any(c.displacement for answer in answers for step in answer.steps for c in step)


def test_replaying_the_steps_gives_the_canvas(answers, toy):
    for answer in answers:
        canvas = [toy.pad_id] * 16
        for step in read_steps(trace_row(answer)):
            for commit in step:
                canvas[commit.position] = commit.token
        assert canvas == answer.canvas


def test_an_answer_without_steps_is_named(toy):
    answer = Sampler(toy, SamplerConfig(canvas_length=4)).generate(PROMPTS[:1])[0]
    with pytest.raises(DataError, match=r"the answer has no steps; decode with .*trace=True"):
        trace_row(answer)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"steps": [[[1], [2]]]},
        {"steps": [[[1], [2], [0.5], [0], []]]},
        {"steps": [[[1], [2], ["sure"], [0], [0]]]},
    ],
)
def test_a_broken_trace_is_named(row):
    with pytest.raises(DataError, match="trace: expected steps of 5 equally long lists"):
        read_steps(row)
