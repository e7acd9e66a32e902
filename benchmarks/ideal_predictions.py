"""Is slack-CTC ahead at few steps even where nothing is learnt? python benchmarks/ideal_predictions.py [--languages N].

Small random languages, every sentence listed with its probability, decoded by predictors that are what training
objectives ask for at every visible pattern, with nothing in between. Exact, by enumeration in float64: matched CE on
plain canvases (a sentence and end-of-text behind it) and CE on slack canvases (slack ratio 0 to 0.5, every placement
alike, end-of-text behind), the marginal of each masked cell. Found numerically: slack-CTC, whose loss given a pattern
is not convex in the cells' distributions. Expectation-maximisation from several starts, the lowest kept: a local
optimum that may not be the global one, nor agree between patterns on where slack goes, as a network's would have to.

Patterns that no training canvas shows are read as the training canvases that differ from them in the fewest cells (a
convention of ours; trained models go on there too). Decoded by the package's sampler. In ``unequal`` the opening phrase
has 1, 2 or 3 words, so that it shifts all that follows; in ``equal`` each has 2. All else is alike, the random
probabilities too. The unit of every interval is the language. Writes benchmarks/results/ideal_predictions.csv;
7 minutes of CPU time for two workers.
"""

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ideal_language import (
    CANVAS_LENGTH,
    NUM_STARTS,
    OPENINGS,
    SLACK_RATIO,
    Canvases,
    Ideal,
    Optimum,
    Sentence,
    canvases,
    loaded_model,
    marginals,
    sentences,
    slack_ctc_optimum,
)
from jaxtyping import Float
from measurement import hardware, write_csv

from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.statistics import benjamini_hochberg, mean_interval, sign_flip_test

STEPS = (1, 2, 3, 5, 10)
SPACING = 4
NUM_SAMPLES = 64
"""Texts of a language at temperature 1."""
ARMS = ("ce", "ce_slack", "slack_ctc", "slack_ctc_first")
"""The last is slack-CTC searched for from CE's marginals alone, to see what the choice of the optimum does."""
ORDERS = {
    "plain": {},
    "slack last": {"delay_slack": True},
    "slack and ends last": {"delay_slack": True, "delay_end": True},
}


class Way(NamedTuple):
    """How a canvas is decoded."""

    order: str
    temperature: float
    steps: int
    spacing: int


def ways() -> Iterator[Way]:
    """Spacing is left out where it cannot matter: with all cells in one step, or one in each."""
    for order, temperature, steps in product(ORDERS, (0.0, 1.0), STEPS):
        yield Way(order, temperature, steps, 1)
        if 1 < steps < CANVAS_LENGTH:
            yield Way(order, temperature, steps, SPACING)


def decode(model: LoadedModel, way: Way, *, canvas_length: int = CANVAS_LENGTH) -> list[Sentence]:
    """Collapsed texts of one decoding, or of `NUM_SAMPLES` at temperature 1."""
    config = SamplerConfig(
        canvas_length=canvas_length,
        steps=way.steps,
        temperature=way.temperature,
        spacing=way.spacing,
        batch_size=NUM_SAMPLES,
        **ORDERS[way.order],
    )
    prompts = [[model.pad_id]] * (NUM_SAMPLES if way.temperature > 0 else 1)
    return [tuple(answer.tokens) for answer in Sampler(model, config).generate_from_ids(prompts)]


def total_variation(texts: Sequence[Sentence], language: dict[Sentence, float]) -> float:
    """Half the summed difference between the shares of the texts and their probabilities."""
    shares = {text: texts.count(text) / len(texts) for text in set(texts)}
    return 0.5 * sum(
        abs(shares.get(text, 0.0) - language.get(text, 0.0)) for text in {*shares, *language}
    )


class Outcome(NamedTuple):
    """All decodings of one language, and how the search for its optima went."""

    scores: dict[tuple[Way, str], tuple[float, float]]
    """By way and arm: the share of valid texts, and their total variation from the language."""
    gradients: list[float]
    agreements: list[float]


def study(job: tuple[str, int]) -> Outcome:
    """Decode one language in every way by every arm."""
    language = sentences(*job)
    plain = canvases(language, slack_ratio=0.0, canvas_length=CANVAS_LENGTH)
    slack = canvases(language, slack_ratio=SLACK_RATIO, canvas_length=CANVAS_LENGTH)
    optima: list[Optimum] = []

    def optimum(table: Canvases) -> Float[np.ndarray, "M V"]:
        optima.append(slack_ctc_optimum(table))
        return optima[-1].probs

    def first_optimum(table: Canvases) -> Float[np.ndarray, "M V"]:
        return slack_ctc_optimum(table, num_starts=1).probs

    ideals = (
        Ideal(plain, marginals),
        Ideal(slack, marginals),
        Ideal(slack, optimum),
        Ideal(slack, first_optimum),
    )
    scores: dict[tuple[Way, str], tuple[float, float]] = {}
    for arm, ideal in zip(ARMS, ideals, strict=True):
        model = loaded_model(ideal, canvas_length=CANVAS_LENGTH)
        for way in ways():
            texts = decode(model, way)
            valid = sum(text in language for text in texts) / len(texts)
            scores[way, arm] = valid, total_variation(texts, language)
    return Outcome(scores, [o.gradient for o in optima], [o.agreement for o in optima])


def summary(outcomes: dict[str, list[Outcome]]) -> list[dict[str, Any]]:
    """One row per setting and way: means over languages, and differences from matched CE with intervals.

    The third setting, ``unequal minus equal``, has differences of differences alone. p-values are of sign flips,
    adjusted over all ways of one setting and one difference.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    rows: list[dict[str, Any]] = []
    metrics = ("valid", "variation")
    table = {
        (setting, way, arm, metric): np.array([o.scores[way, arm][m] for o in found])
        for setting, found in outcomes.items()
        for way in ways()
        for arm in ARMS
        for m, metric in enumerate(metrics)
    }
    for setting in (*outcomes, "unequal minus equal"):
        for way in ways():
            row: dict[str, Any] = {"setting": setting, **way._asdict()}
            for metric, arm in product(metrics, ARMS):
                values = table.get((setting, way, arm, metric))
                row[f"{metric}_{arm}"] = None if values is None else round(float(values.mean()), 4)
            for metric, arm in product(metrics, ARMS[1:]):
                differences = [
                    table[name, way, arm, metric] - table[name, way, "ce", metric]
                    for name in ([setting] if setting in outcomes else ["unequal", "equal"])
                ]
                paired = differences[0] - (differences[1] if len(differences) > 1 else 0.0)
                found = mean_interval(paired, rng=rng)
                name = f"{metric}_{arm}_minus_ce"
                for end in ("value", "low", "high"):
                    row[name + ("" if end == "value" else f"_{end}")] = round(
                        float(getattr(found, end)), 4
                    )
                row[f"{name}_p"] = sign_flip_test(paired, rng=rng)
            rows.append(row)
        mine = rows[-len(list(ways())) :]
        for metric, arm in product(metrics, ARMS[1:]):
            name = f"{metric}_{arm}_minus_ce"
            adjusted = benjamini_hochberg([row[f"{name}_p"] for row in mine])
            for row, p in zip(mine, adjusted, strict=True):
                row[f"{name}_p"] = None if p is None else round(p, 4)
    return rows


def main(*, num_languages: int, first_seed: int, output: Path) -> None:
    """Run everything and write the table."""
    start = time.perf_counter()
    outcomes: dict[str, list[Outcome]] = {}
    # Two workers share two cores; with threads of their own, small products wait for each other.
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for setting in OPENINGS:
            jobs = [(setting, first_seed + number) for number in range(num_languages)]
            outcomes[setting] = list(pool.map(study, jobs))
            agreements = np.concatenate([o.agreements for o in outcomes[setting]])
            gradients = np.concatenate([o.gradients for o in outcomes[setting]])
            print(
                f"{setting}: {len(agreements)} patterns, largest gradient {gradients.max():.1e}, above 1e-6 "
                f"in {np.mean(gradients > 1e-6):.4f}; starts that reach the best: mean {agreements.mean():.3f}, "
                f"the first alone in {np.mean(agreements <= 1 / NUM_STARTS):.3f}"
            )
    rows = summary(outcomes)
    print("| setting | order | T | steps | spacing | CE | slack-CTC | minus CE | adjusted p |")
    print("|---" * 9 + "|")
    for row in rows:
        means = " | ".join(str(row[f"valid_{arm}"] or "") for arm in ("ce", "slack_ctc"))
        low, high = (row[f"valid_slack_ctc_minus_ce_{end}"] for end in ("low", "high"))
        print(
            f"| {row['setting']} | {row['order']} | {row['temperature']:g} | {row['steps']} | {row['spacing']} | "
            f"{means} | {row['valid_slack_ctc_minus_ce']:+.3f} [{low:.3f}, {high:.3f}] | "
            f"{row['valid_slack_ctc_minus_ce_p']} |"
        )
    machine = {
        "num_languages": num_languages,
        "num_samples": NUM_SAMPLES,
        "hardware": hardware("cpu"),
        "slackdlm_version": version("slackdlm"),
        "torch_version": torch.__version__,
    }
    write_csv(output, [row | machine for row in rows])
    print("written to", output, f"after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", type=int, default=48)
    parser.add_argument("--first-seed", type=int, default=0, help="of the languages")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "ideal_predictions.csv"
    )
    arguments = parser.parse_args()
    main(
        num_languages=arguments.languages,
        first_seed=arguments.first_seed,
        output=arguments.output,
    )
