"""What does a worker of the demo do? It trains or decodes one arm under one training seed."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, cast

from slackdlm.benchmarks.answers import read_questions
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, new_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.records import Question
from slackdlm.sampling.sampler import SamplerConfig
from slackdlm.study.demo_plan import BASE, PROBED, DemoPlan, Treatment
from slackdlm.study.demo_scores import AnsweredArm
from slackdlm.study.grid import Arm, Grid, answer_arm
from slackdlm.study.toy_language import vocabulary
from slackdlm.training.config import DataConfig, FromScratchConfig, ModelConfig, Recipe
from slackdlm.training.data import encode_samples, read_dialogues
from slackdlm.training.prepare import Prepared, new_config
from slackdlm.training.run import train

_PROMPT_LENGTH = 32
"""Longest prompt of a toy story, in tokens."""


class Run(NamedTuple):
    """One arm under one training seed: what a worker trains or decodes."""

    plan: DemoPlan
    output: Path
    arm: Treatment
    seed: int

    @property
    def folder(self) -> Path:
        """Where its training run lives."""
        return self.output / f"seed-{self.seed}" / self.arm.name

    @property
    def answered(self) -> AnsweredArm:
        """Where its answers go, and under which conditions; the base and the variants are not intervened on."""
        plan = self.plan
        grid = Grid(
            sampler=SamplerConfig(
                canvas_length=plan.canvas_length,
                delay_end=plan.delayed,
                delay_slack=plan.delayed,
                batch_size=64,
            ),
            rates=plan.rates,
            kinds=("shift", "substitute"),
            num_seeds=plan.num_decoding_seeds,
            temperatures=plan.temperatures,
            steps=plan.steps,
            probed_steps=plan.probed_steps if self.arm.name in PROBED else (),
        )
        name = f"seed-{self.seed}-{self.arm.name}"
        return AnsweredArm(self.output, name, self.arm.name, self.seed, grid)

    @property
    def label(self) -> str:
        """Name of its progress bar."""
        return f"{self.arm.label}, seed {self.seed}"


def questions_of(output: Path) -> list[Question]:
    """The demo's questions, as every stage asks them."""
    return read_questions(output / "tasks" / "questions.jsonl", column="prompt")


def train_run(run: Run) -> None:
    """Train the base from scratch, or an arm from the base; continues where it was cut off."""
    is_base = run.arm.name == BASE.name
    training = run.plan.base if is_base else run.plan.arm
    # Another seed than the base's, so that no arm meets the base's masks again; the same one for every arm.
    seed = 2 * run.seed + (not is_base)
    base = run.folder.with_name(BASE.name) / "model"
    stories = run.output / "tasks" / "train.jsonl"
    recipe = Recipe(
        name=run.arm.name,
        model=ModelConfig(from_scratch=_shape(run.plan))
        if is_base
        else ModelConfig(path=str(base)),
        data=DataConfig(
            train=str(stories),
            max_prompt_length=_PROMPT_LENGTH,
            canvas_length=run.plan.canvas_length,
        ),
        objective=run.arm.objective,
        training=replace(training, seed=seed, data_seed=seed),
    )
    start = _new_base(recipe, seed=run.seed) if is_base else load_model(base)
    samples = encode_samples(
        read_dialogues(stories),
        start.tokenizer,
        name="toy stories",
        max_prompt_length=recipe.data.max_prompt_length,
        canvas_length=recipe.data.canvas_length,
    )
    held_out = training.eval_samples
    train(
        recipe,
        output=run.folder,
        prepared=Prepared(start, samples[held_out:], samples[:held_out]),
        resume=(run.folder / "run.json").exists(),
        progress=False,
    )


def decode_run(run: Run) -> None:
    """Answer every question under every condition, as ``slackdlm answer`` would."""
    answered, model = run.answered, run.folder / "model"
    arm = Arm(answered.name, str(model), partial(load_model, model))
    answer_arm(arm, questions_of(run.output), answered.grid, run.output)


def _shape(plan: DemoPlan) -> FromScratchConfig:
    return FromScratchConfig(
        tokenizer_kind="word",
        vocab_size=256,
        d_model=plan.d_model,
        n_layers=plan.n_layers,
        n_heads=plan.n_heads,
        mlp_hidden_size=plan.mlp_hidden_size,
    )


def _new_base(recipe: Recipe, *, seed: int) -> LoadedModel:
    """A new model over the toy language's words, its output layer tied to its embedding."""
    shape = cast("FromScratchConfig", recipe.model.from_scratch)
    tokenizer = train_tokenizer(
        [" ".join(vocabulary())], vocab_size=shape.vocab_size, kind=shape.tokenizer_kind
    )
    config = new_config(recipe, shape, vocab_size=len(tokenizer), weight_tying=True)
    return new_model(config, tokenizer, generator_seed=seed)
