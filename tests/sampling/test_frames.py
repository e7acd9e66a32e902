import pytest

from slackdlm.errors import ConfigError
from slackdlm.sampling.decoding import Commit
from slackdlm.sampling.frames import frames
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.study.toy_language import write_tasks

PROMPTS = [task.prompt for task in write_tasks(2, seed=5)]


def decode(toy, kind=None, **config):
    intervention = None if kind is None else ShiftIntervention(0.5, kind=kind, seed=0)
    settings = SamplerConfig(canvas_length=12, steps=4, **config)
    return Sampler(toy, settings, intervention).generate(PROMPTS)


def test_the_frames_go_from_all_masks_to_the_canvas(toy):
    for generation in decode(toy, trace=True):
        shown = frames(toy, generation)
        assert [frame["step"] for frame in shown] == [0, 1, 2, 3, 4]
        masked = [sum(c["state"] == "masked" for c in frame["cells"]) for frame in shown]
        assert masked == [12, 9, 6, 3, 0]
        assert [sum(c["new"] for c in frame["cells"]) for frame in shown] == [0, 3, 3, 3, 3]
        last = [cell["token"] for cell in shown[-1]["cells"]]
        assert last == [toy.tokenizer.decode([token]) for token in generation.canvas]


@pytest.mark.parametrize(("kind", "state"), [("shift", "displaced"), ("substitute", "substituted")])
def test_altered_tokens_say_how(toy, kind, state):
    for generation in decode(toy, kind, trace=True):
        cells = frames(toy, generation)[-1]["cells"]
        altered = [c["state"] for c in cells if c["state"] in ("displaced", "substituted")]
        assert altered == [state] * generation.num_displaced
        assert altered


def test_a_cell_says_what_its_token_is(toy):
    (generation, _) = decode(toy, trace=True)
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


def test_a_decoding_without_a_trace_has_no_frames(toy):
    with pytest.raises(ConfigError, match="set SamplerConfig"):
        frames(toy, decode(toy)[0])
