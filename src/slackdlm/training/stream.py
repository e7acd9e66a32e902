"""Which canvas does the model see at draw n? A pure function of the recipe and n.

Resuming, workers, prefetching, accumulation and the number of processes therefore cannot change a
run. Order, mask levels and slack come from three separate streams: arms with the same seeds share
the first two whatever their slack.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.utils.data import Dataset

from slackdlm.training.config import Recipe
from slackdlm.training.data import Sample
from slackdlm.training.draw import CanvasSpec, Draw, Generators, content_length, draw_canvas
from slackdlm.training.order import SampleOrder, seeded_generator

NUM_EVAL_LEVELS = 4
"""Noise levels per evaluation sample. Ours."""
_EVAL_SEED = 0


class TrainStream(Dataset[Draw]):
    """All draws of a run, in order: item ``n`` belongs to optimizer step ``n // batch_size``.

    Lengths that depend on the company of a sample depend on its optimizer step, not on its forward
    pass: how a step is split over processes and accumulation cannot change it.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: CanvasSpec,
        *,
        num_steps: int,
        batch_size: int,
        seed: int,
        data_seed: int,
        length_grouping: bool = False,
    ) -> None:
        self.samples = samples
        self.spec = spec
        self.num_steps = num_steps
        self.batch_size = batch_size
        self.seed = seed
        self._order = SampleOrder(
            [sample.prompt.numel() + sample.response.numel() for sample in samples],
            data_seed=data_seed,
            batch_size=batch_size if length_grouping else None,
        )
        self._lengths: tuple[int, list[int]] = (-1, [])  # the last step asked for

    def __len__(self) -> int:
        return self.num_steps * self.batch_size

    def sample_id(self, n: int) -> int:
        """Index of the sample of draw ``n``: every epoch is one permutation of all samples."""
        return self._order[n]

    def step_sample_ids(self, step: int) -> list[int]:
        """Indices of the samples of an optimizer step, counted from 0."""
        first = step * self.batch_size
        return [self.sample_id(n) for n in range(first, first + self.batch_size)]

    def step_lengths(self, step: int) -> list[int]:
        """Supervised positions of each draw of an optimizer step, counted from 0."""
        if self.spec.padding == "fixed":
            return [self.spec.canvas_length] * self.batch_size
        if self._lengths[0] != step:
            first = step * self.batch_size
            lengths = [
                content_length(
                    self.samples[self.sample_id(n)],
                    self.spec,
                    slack_generator=self._generator("slack", n),
                )
                for n in range(first, first + self.batch_size)
            ]
            if self.spec.padding == "llada":
                lengths = [max(lengths)] * self.batch_size
            self._lengths = step, lengths
        return self._lengths[1]

    def __getitem__(self, index: int) -> Draw:
        step, place = divmod(index, self.batch_size)
        lengths = self.step_lengths(step)
        sample_id = self.sample_id(index)
        return draw_canvas(
            self.samples[sample_id],
            self.spec,
            Generators(
                self._generator("noise", index),
                self._generator("slack", index),
                self._alignment_generator(step, index),
            ),
            sample_id=sample_id,
            length=lengths[place],
            mean_length=sum(lengths) / len(lengths),
        )

    def _alignment_generator(self, step: int, index: int) -> torch.Generator | None:
        is_model = (
            self.spec.objective.alignment == "model"
            and step >= self.spec.objective.alignment_warmup
        )
        return self._generator("alignment", index) if is_model else None

    def _generator(self, kind: str, n: int) -> torch.Generator:
        return seeded_generator(kind, self.seed, n, self.sample_id(n))


def train_stream(recipe: Recipe, samples: Sequence[Sample], spec: CanvasSpec) -> TrainStream:
    """All draws of a run."""
    return TrainStream(
        samples,
        spec,
        num_steps=recipe.training.steps,
        batch_size=recipe.training.batch_size,
        seed=recipe.training.seed,
        data_seed=recipe.training.data_seed,
        length_grouping=recipe.data.length_grouping,
    )


class EvalStream(Dataset[Draw]):
    """Fixed draws of the evaluation loss: times on one even grid over all samples, fixed masks.

    Neither depends on the recipe's seeds, so runs and arms are measured on the same noise. With
    ``padding: llada`` the longest canvas of all evaluation draws stands for that of a step. The
    weight of a draw is ``1 / p``: its weighted loss is its share of the bound, in nats.
    """

    def __init__(self, samples: Sequence[Sample], spec: CanvasSpec) -> None:
        self.samples = samples
        self.spec = spec
        self.length: int | None = None
        if spec.padding == "fixed":
            self.length = spec.canvas_length
        elif spec.padding == "llada":
            self.length = self._longest()

    def __len__(self) -> int:
        return len(self.samples) * NUM_EVAL_LEVELS

    def __getitem__(self, index: int) -> Draw:
        sample_id, level = divmod(index, NUM_EVAL_LEVELS)
        is_model = self.spec.objective.alignment == "model"
        generators = Generators(
            seeded_generator("eval noise", _EVAL_SEED, index),
            _eval_slack(index),
            seeded_generator("eval alignment", _EVAL_SEED, index) if is_model else None,
        )
        draw = draw_canvas(
            self.samples[sample_id],
            self.spec,
            generators,
            sample_id=sample_id,
            length=self.length,
            t=(level + (sample_id + 0.5) / len(self.samples)) / NUM_EVAL_LEVELS,
        )
        return replace(draw, loss_weight=1.0 / draw.rate)

    def _longest(self) -> int:
        return max(
            content_length(
                self.samples[index // NUM_EVAL_LEVELS],
                self.spec,
                slack_generator=_eval_slack(index),
            )
            for index in range(len(self))
        )


def _eval_slack(index: int) -> torch.Generator:
    return seeded_generator("eval slack", _EVAL_SEED, index)
