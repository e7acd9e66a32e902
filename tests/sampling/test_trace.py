import json

import pytest

from slackdlm.errors import ConfigError, DataError
from slackdlm.sampling.decoding import Commit
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.sampling.trace import frames, read_steps, trace_row

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
            for result, commit in zip(read, commits, strict=True):
                assert result.confidence == pytest.approx(commit.confidence, rel=1e-3)
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
    for read in (trace_row, lambda answer: frames(toy, answer)):
        with pytest.raises(ConfigError, match=r"the answer has no steps; decode with .*trace=True"):
            read(answer)


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


def decode(toy, kind=None):
    intervention = None if kind is None else ShiftIntervention(0.5, kind=kind, seed=0)
    config = SamplerConfig(canvas_length=12, steps=4, trace=True)
    return Sampler(toy, config, intervention).generate(PROMPTS)


def test_the_frames_go_from_all_masks_to_the_canvas(toy):
    for generation in decode(toy):
        shown = frames(toy, generation)
        assert [frame["step"] for frame in shown] == [0, 1, 2, 3, 4]
        masked = [sum(c["state"] == "masked" for c in frame["cells"]) for frame in shown]
        assert masked == [12, 9, 6, 3, 0]
        assert [sum(c["new"] for c in frame["cells"]) for frame in shown] == [0, 3, 3, 3, 3]
        last = [cell["token"] for cell in shown[-1]["cells"]]
        assert last == [toy.tokenizer.decode([token]) for token in generation.canvas]


@pytest.mark.parametrize(("kind", "state"), [("shift", "displaced"), ("substitute", "substituted")])
def test_altered_tokens_say_how(toy, kind, state):
    for generation in decode(toy, kind):
        cells = frames(toy, generation)[-1]["cells"]
        altered = [c["state"] for c in cells if c["state"] in ("displaced", "substituted")]
        assert altered == [state] * generation.num_displaced
        assert altered


def test_a_cell_says_what_its_token_is(toy):
    (generation, _) = decode(toy)
    end, slack, word = (
        toy.eos_ids[0],
        toy.slack_id,
        toy.tokenizer.encode(PROMPTS[0], add_special_tokens=False)[0],
    )
    commits = [
        Commit(0, word, 0.5, altered=False),
        Commit(1, slack, 0.5, altered=False),
        *(Commit(2 + i, end, 0.5, altered=False) for i, end in enumerate(toy.eos_ids)),
        Commit(5, end, 0.5, altered=True, displacement=1),
        Commit(6, slack, 0.5, altered=True),
    ]
    _, last = frames(toy, generation._replace(steps=[commits]))
    states = [last["cells"][commit.position]["state"] for commit in commits]
    ends = ["end"] * len(toy.eos_ids)
    assert states == ["token", "slack", *ends, "displaced", "substituted"]
    assert {cell["state"] for cell in last["cells"][7:]} == {"masked"}
