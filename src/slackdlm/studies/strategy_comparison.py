"""Which strategy gives the best answers for the model passes it takes? On the demo's language, judged exactly."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from slackdlm.evaluation.statistics import Estimate, mean_interval
from slackdlm.models.loading import LoadedModel
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.studies.toy_judge import judge

STEPS = (6, 12, 24, 48)
SCHEDULED = ("low_confidence", "entropy", "margin", "random")
BOUNDS = {"threshold": (0.5, 0.7, 0.9), "entropy_bound": (0.5, 1.5, 4.0)}
BLOCK_LENGTH = 12


class Setting(NamedTuple):
    """One way to decode."""

    label: str
    arguments: dict[str, Any]
    """Of :class:`SamplerConfig`."""


class Outcome(NamedTuple):
    """What one model made of one setting."""

    setting: Setting
    forwards: float
    """Model passes per answer, mean."""
    quality: Estimate
    """Of `Verdict`, over questions."""
    words: float
    """Per answer, mean."""


def settings(*, temperature: float) -> list[Setting]:
    """Every strategy over the whole canvas, and blocks with and without caches."""
    found = [
        Setting(f"{name}, {steps} steps", {"remasking": name, "steps": steps})
        for name in SCHEDULED
        for steps in STEPS
    ]
    found += [
        Setting(f"{name}, {bound:g}", {"remasking": name, "bound": bound})
        for name, bounds in BOUNDS.items()
        for bound in bounds
    ]
    in_blocks = {
        "low_confidence, 12 steps": {"steps": 12},
        "low_confidence, 24 steps": {"steps": 24},
        "low_confidence, 48 steps": {"steps": 48},
        "threshold, 0.9": {"remasking": "threshold", "bound": 0.9},
    }
    found += [
        Setting(
            f"blocks of {BLOCK_LENGTH}, {label}, {'exact' if cache == 'none' else cache + ' cache'}",
            arguments | {"block_length": BLOCK_LENGTH, "cache": cache},
        )
        for label, arguments in in_blocks.items()
        for cache in ("none", "prefix", "dual")
    ]
    return [Setting(s.label, s.arguments | {"temperature": temperature}) for s in found]


def compare(
    loaded: LoadedModel,
    prompts: Sequence[str],
    ways: Sequence[Setting],
    *,
    canvas_length: int,
    rng: np.random.Generator,
    seed: int = 0,
) -> Iterator[Outcome]:
    """Decode the prompts in every way and judge the answers.

    Args:
        loaded: A model of the demo.
        prompts: Questions; their places seed the noise.
        ways: What to compare.
        canvas_length: ``L`` the model was trained with.
        rng: For the bootstrap.
        seed: Of the decoding noise.
    """
    for setting in ways:
        config = SamplerConfig(
            canvas_length=canvas_length, seed=seed, batch_size=64, **setting.arguments
        )
        answers = Sampler(loaded, config).generate(prompts)
        scores = [judge(p, a.text).quality for p, a in zip(prompts, answers, strict=True)]
        yield Outcome(
            setting,
            float(np.mean([a.num_forwards for a in answers])),
            mean_interval(np.array(scores), rng=rng, bounds=(0.0, 1.0)),
            float(np.mean([len(a.text.split()) for a in answers])),
        )
