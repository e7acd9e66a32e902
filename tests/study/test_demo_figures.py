"""The demo's figures on one tiny plan, to the last digit, by the road of `answer` and `judge`.

`golden/model` is a LLaDA of 2,600 parameters (d_model 16, one layer), trained for 2,000 steps of slack-CTC on stories
of a determiner, a noun and a verb. `golden/figures.json` is what `new_road` gave when the old road gave the same.
"""

import json
from pathlib import Path

import numpy as np
import torch

from slackdlm.models.loading import load_model
from slackdlm.records import Question
from slackdlm.sampling.sampler import SamplerConfig
from slackdlm.study.demo_figures import quality_rows, source_figures, win_rate_rows
from slackdlm.study.demo_result import sample_answers
from slackdlm.study.demo_scores import AnsweredArm, Scores, grade_arm
from slackdlm.study.findings import findings
from slackdlm.study.grid import Arm, Grid, answer_arm
from slackdlm.study.toy_language import write_tasks

GOLDEN = Path(__file__).with_name("golden")
CANVAS, STEPS, SEEDS, NUM_QUESTIONS = 24, (4, 12), 2, 8
ARMS = ("base", "ce", "ce_slack", "slack_ctc")
TASKS = write_tasks(NUM_QUESTIONS, seed=2)


def grid(arm):
    return Grid(
        sampler=SamplerConfig(
            canvas_length=CANVAS, delay_end=True, delay_slack=True, batch_size=64
        ),
        rates=(0.05, 0.2),
        kinds=("shift", "substitute"),
        num_seeds=SEEDS,
        temperatures=(0.0, 1.0),
        steps=STEPS,
        probed_steps=() if arm == "base" else (12,),
    )


def model(arm, training_seed):
    """A trained network of some 3,000 parameters, disturbed in another way for each arm and training seed."""
    loaded = load_model(GOLDEN / "model")
    rng = np.random.Generator(np.random.PCG64([ARMS.index(arm), training_seed]))
    with torch.no_grad():
        for weight in loaded.model.parameters():
            noise = rng.standard_normal(tuple(weight.shape), dtype=np.float32)
            weight += 0.03 * torch.from_numpy(noise)
    return loaded


def sections(scores, samples):
    rng = np.random.Generator(np.random.PCG64(0))
    quality = quality_rows(scores, canvas_length=CANVAS, rng=rng)
    win_rates = win_rate_rows(scores, rng=rng)
    source = source_figures(TASKS, rng=rng)
    return {
        "quality": [row.model_dump(exclude_unset=True) for row in quality],
        "win_rates": [row.model_dump(exclude_unset=True) for row in win_rates],
        "source": source.model_dump(),
        "samples": [sample.model_dump() for sample in samples],
        "summary": findings(quality, win_rates, source, num_seeds=2),
    }


def new_road(folder):
    questions = [
        Question(str(n), None, ({"role": "user", "content": task.prompt},))
        for n, task in enumerate(TASKS)
    ]
    scores, arms = Scores(num_questions=NUM_QUESTIONS), []
    for seed in range(2):
        for arm in ARMS:
            answered = AnsweredArm(folder, f"seed-{seed}-{arm}", arm, seed, grid(arm))
            load = lambda arm=arm, seed=seed: model(arm, seed)  # noqa: E731
            answer_arm(Arm(answered.name, "tiny", load), questions, answered.grid, folder)
            scores.add(answered, grade_arm(answered, questions))
            arms.append(answered)
    greedy = grid("base").plain()[STEPS.index(12)]
    tokenizer = model("base", 0).tokenizer
    return sections(scores, sample_answers(arms[: len(ARMS)], tokenizer, TASKS[:2], greedy))


def test_the_demo_s_figures_are_those_of_its_first_road(tmp_path):
    """The golden file was equal to what the demo's own grid, files and judge had given, before they were deleted."""
    held = json.loads((GOLDEN / "figures.json").read_text())
    made = new_road(tmp_path)
    for section, figures in held.items():
        assert json.loads(json.dumps(made[section])) == figures, section
    qualities = [row["metrics"]["quality"]["value"] for row in held["quality"]]
    assert len(set(qualities)) > 10, "answers that can tell conditions apart"
