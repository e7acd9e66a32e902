import pytest

from slackdlm.benchmarks.answers import read_turns
from slackdlm.errors import ConfigError
from slackdlm.records import Question
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.study.grid import Arm, Grid, answer_arm
from slackdlm.study.toy_language import write_tasks

QUESTIONS = [
    Question(str(n), None, ({"role": "user", "content": task.prompt},))
    for n, task in enumerate(write_tasks(3, seed=0))
]
GRID = Grid(
    sampler=SamplerConfig(canvas_length=6, batch_size=2),
    rates=(0.2,),
    kinds=("shift",),
    num_seeds=2,
    temperatures=(0.0, 1.0),
    steps=(3, 6),
    probed_steps=(3,),
)


def test_each_setting_is_decoded_plain_and_the_probed_ones_with_every_kind_and_rate():
    assert [GRID.name(condition, seed) for condition, seed in GRID.decodings()] == [
        f"temperature-{temperature}-steps-{steps}-{label}-seed-{seed}"
        for label, temperature, steps, num_seeds in (
            ("none", 0, 3, 1),
            ("none", 0, 6, 1),
            ("none", 1, 3, 2),
            ("none", 1, 6, 2),
            ("shift-0.2", 0, 3, 2),
            ("shift-0.2", 1, 3, 2),
        )
        for seed in range(num_seeds)
    ]


def answers(folder):
    files = sorted((folder / "answers" / "ce").glob("*.jsonl"))
    return {
        file.name: [turn.model_dump(exclude={"seconds"}) for turn in read_turns(file)]
        for file in files
    }


def test_an_arm_that_was_cut_off_decodes_only_what_is_missing(toy, tmp_path, monkeypatch):
    arm = Arm("ce", "toy", lambda: toy)
    answer_arm(arm, QUESTIONS, GRID, tmp_path / "whole")
    whole = answers(tmp_path / "whole")
    assert sum(map(len, whole.values())) == 3 * 10
    generate, batches = Sampler.generate, []

    def counted(self, *arguments, **options):
        batches.append(len(options["row_ids"]))
        if len(batches) == 6:  # the second batch of the third decoding
            raise KeyboardInterrupt
        return generate(self, *arguments, **options)

    monkeypatch.setattr(Sampler, "generate", counted)
    with pytest.raises(KeyboardInterrupt):
        answer_arm(arm, QUESTIONS, GRID, tmp_path / "cut")
    assert len(answers(tmp_path / "cut")) == 2
    answer_arm(arm, QUESTIONS, GRID, tmp_path / "cut")
    assert answers(tmp_path / "cut") == whole
    # 2 + 1 questions a decoding; the first batch of the third was kept
    assert batches == [2, 1, 2, 1, 2, 1] + [1] + [2, 1] * 7


def test_steps_that_are_probed_but_not_decoded_are_refused():
    with pytest.raises(ConfigError, match=r"probed_steps \[5\] are not among steps \(3, 6\)"):
        Grid(sampler=GRID.sampler, steps=(3, 6), probed_steps=(5,))
