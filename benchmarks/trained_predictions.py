"""Do trained networks reach the advantage of ideal predictions? python benchmarks/trained_predictions.py FOLDER.

Tiny LLaDA-type networks are trained with matched CE and with slack-CTC on texts of the small languages of
``ideal_predictions.py``, where what each objective asks for is known, for growing numbers of steps, and once from a CE
base as the demo trains. Networks and ideal predictions are decoded alike, and the networks' losses are compared with
the least possible at patterns as training shows them: for CE the excess is the KL divergence from the ideal.

``unequal`` is the language of ``ideal_predictions.py`` whose openings shift all that follows; in ``grammar`` the
sentences are those of the demo's toy language as kinds of words, without openers and prepositions: optional words may
stand in most places. It is decoded by ideal predictions alone. The unit of every interval is the language; each has one
training seed, its own. Finished languages are kept in FOLDER, which continues a run that was cut off. Writes
benchmarks/results/trained_predictions.csv; two and a half minutes of CPU time a language trained on.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import torch
from ideal_language import (
    Canvases,
    Ideal,
    Sentence,
    canvases,
    language_of,
    loaded_model,
    marginals,
    matching,
    slack_ctc_optimum,
    token_id,
    tokenizer,
)
from ideal_predictions import Way, decode, total_variation
from jaxtyping import Float, Int
from measurement import hardware, write_csv

from slackdlm.atomic import write_json
from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import load_model, new_model
from slackdlm.models.special_tokens import END_OF_TEXT, MASK
from slackdlm.statistics import mean_interval, sign_flip_test
from slackdlm.training.config import (
    DataConfig,
    FromScratchConfig,
    ModelConfig,
    ObjectiveConfig,
    Recipe,
    TrainingConfig,
)
from slackdlm.training.data import Sample
from slackdlm.training.prepare import Prepared
from slackdlm.training.run import train as run_training

CANVAS_LENGTHS = {"unequal": 10, "grammar": 13}
"""The longest sentence, 7 or 9 words, and its most slack."""
DECODING_STEPS = {"unequal": (5,), "grammar": (7, 5, 4)}
"""Two cells a step; in ``grammar`` also three and four."""
SLACK_RATIOS = {"ce": 0.0, "slack_ctc": 0.5}
"""The largest of each arm."""
STEPS = (300, 1000, 3000)
"""Of training from scratch."""
BASE, FINE_TUNING = 1000, 2000
"""Steps of CE before, and of each arm from there: as many as the longest from scratch."""
NUM_TEXTS = 10_000
NUM_PATTERNS = 200


class Training(NamedTuple):
    """How a network is trained."""

    arm: str
    base: int
    """Steps of CE before."""
    steps: int

    @property
    def predictor(self) -> str:
        """Its name in the table."""
        return f"{self.steps} steps" if not self.base else f"{self.base} of CE, then {self.steps}"


TRAININGS = [
    *(Training(arm, 0, steps) for steps in STEPS for arm in SLACK_RATIOS),
    *(Training(arm, BASE, FINE_TUNING) for arm in SLACK_RATIOS),
]
"""A base comes before what starts from it."""
IDEAL = "ideal"


def ways(setting: str) -> Iterator[Way]:
    """Cells of a step apart or not, and one cell a step."""
    for order in ("slack last", "slack and ends last"):
        for temperature in (0.0, 1.0):
            for steps in DECODING_STEPS[setting]:
                for spacing in (1, 4):
                    yield Way(order, temperature, steps, spacing)
            yield Way(order, temperature, CANVAS_LENGTHS[setting], 1)


def texts(language: dict[Sentence, float], *, num_texts: int, seed: int) -> list[Sample]:
    """Drawn from the language, behind the prompt that decoding has: one end-of-text."""
    rng = np.random.Generator(np.random.PCG64(seed))
    drawn = rng.choice(len(language), size=num_texts, p=list(language.values()))
    known, prompt = list(language), torch.tensor([token_id(END_OF_TEXT)])
    return [Sample(prompt, torch.tensor(known[i]), "language") for i in drawn]


def train(
    training: Training, samples: Sequence[Sample], folder: Path, *, canvas_length: int, seed: int
) -> LoadedModel:
    """One network; arms differ in their objective alone, and a base's masks are not met again."""
    size = LLaDAConfig(
        vocab_size=len(tokenizer()),
        d_model=32,
        n_layers=2,
        n_heads=2,
        mlp_hidden_size=96,
        max_sequence_length=canvas_length + 1,
    )
    if training.base:
        model = load_model(folder / Training("ce", 0, training.base).predictor / "ce" / "model")
    else:
        model = new_model(size, tokenizer(), generator_seed=seed)
    streams = 2 * seed + (training.base > 0)
    recipe = Recipe(
        model=ModelConfig(from_scratch=FromScratchConfig(d_model=32, n_layers=2, n_heads=2)),
        data=DataConfig(train=training.predictor, canvas_length=canvas_length),
        objective=ObjectiveConfig(
            kind="slack_ctc" if training.arm == "slack_ctc" else "ce",
            slack_ratio=(0.0, SLACK_RATIOS[training.arm]),
        ),
        training=TrainingConfig(
            steps=training.steps,
            batch_size=16,
            learning_rate=4e-3,
            warmup_steps=min(50, training.steps // 4),
            eval_samples=0,
            save_every=0,
            seed=streams,
            data_seed=streams,
        ),
    )
    run_training(
        recipe,
        output=folder / training.predictor / training.arm,
        prepared=Prepared(model, samples, []),
        progress=False,
    )
    model.model.eval()
    return model


def patterns(table: Canvases, *, seed: int) -> list[Int[np.ndarray, " L"]]:
    """Canvases masked as in training, none without a mask, after the empty one."""
    rng = np.random.Generator(np.random.PCG64(seed))
    length = table.tokens.shape[1]
    found = [np.full(length, token_id(MASK))]
    while len(found) <= NUM_PATTERNS:
        canvas = table.tokens[rng.choice(len(table.weight), p=table.weight)].copy()
        masked = rng.random(length) < rng.random()
        if masked.any():
            canvas[masked] = token_id(MASK)
            found.append(canvas)
    return found


def expected_loss(fits: Canvases, log_probs: Float[np.ndarray, "M V"]) -> float:
    """``-sum_g w_g log sum_{c in g} prod_i q_i(c_i)`` in nats: slack-CTC's, and CE's where there is no slack."""
    scores = log_probs[np.arange(len(log_probs)), fits.tokens].sum(axis=1)
    total = 0.0
    for group in np.unique(fits.group):
        among = fits.group == group
        total -= float(fits.weight[among].sum() * np.logaddexp.reduce(scores[among]))
    return total


class Distance(NamedTuple):
    """How far a network is from the least loss at a pattern, in nats."""

    excess: float
    """Its loss minus the least known."""
    basin: float
    """The part that is left at the local optimum that EM reaches from it: 0 for CE, which has one optimum."""
    num_cells: int


def distance(model: LoadedModel, ideal: Ideal, canvas: Int[np.ndarray, " L"]) -> Distance:
    """The network at one pattern."""
    masked = canvas == token_id(MASK)
    rows = torch.from_numpy(np.append(token_id(END_OF_TEXT), canvas))[None]
    with torch.no_grad():
        logits = model.model(input_ids=rows).logits[0, 1:].double()
    log_probs = logits.log_softmax(-1).numpy()[masked]
    fits = matching(ideal.table, canvas)
    nearest = slack_ctc_optimum(fits, num_starts=1, first_start=np.exp(log_probs)).loss
    best = min(nearest, expected_loss(fits, ideal(canvas)[masked]))
    return Distance(expected_loss(fits, log_probs) - best, nearest - best, int(masked.sum()))


def distances(found: Sequence[Distance]) -> dict[str, float]:
    """Nats a masked cell over all patterns, and nats at the empty canvas, which comes first."""
    num_cells = sum(d.num_cells for d in found[1:])
    return {
        "excess": sum(d.excess for d in found[1:]) / num_cells,
        "basin": sum(d.basin for d in found[1:]) / num_cells,
        "excess_empty": found[0].excess,
        "basin_empty": found[0].basin,
    }


def decodings(
    model: LoadedModel, setting: str, language: dict[Sentence, float]
) -> Iterator[dict[str, Any]]:
    """A row for each way."""
    for way in ways(setting):
        found = decode(model, way, canvas_length=CANVAS_LENGTHS[setting])
        valid = sum(text in language for text in found) / len(found)
        variation = total_variation(found, language)
        yield way._asdict() | {"valid": valid, "variation": variation}


def study(
    setting: str, seed: int, *, trainings: Sequence[Training], num_texts: int = NUM_TEXTS
) -> list[dict[str, Any]]:
    """Rows of one language: every way of decoding the ideal predictions and every network."""
    language, length = language_of(setting, seed), CANVAS_LENGTHS[setting]
    ideals = {
        arm: Ideal(
            canvases(language, slack_ratio=ratio, canvas_length=length),
            marginals if arm == "ce" else lambda fits: slack_ctc_optimum(fits).probs,
        )
        for arm, ratio in SLACK_RATIOS.items()
    }
    rows: list[dict[str, Any]] = []
    for arm, ideal in ideals.items():
        for row in decodings(loaded_model(ideal, canvas_length=length), setting, language):
            rows.append({"predictor": IDEAL, "arm": arm, **row})
    shown = {arm: patterns(ideal.table, seed=seed) for arm, ideal in ideals.items()}
    samples = texts(language, num_texts=num_texts, seed=seed)
    with TemporaryDirectory() as folder:
        for training in trainings:
            arm = training.arm
            model = train(training, samples, Path(folder), canvas_length=length, seed=seed)
            measured = [distance(model, ideals[arm], canvas) for canvas in shown[arm]]
            for row in decodings(model, setting, language):
                extra = distances(measured)
                rows.append({"predictor": training.predictor, "arm": arm, **row, **extra})
    return [{"setting": setting, "seed": seed, **row} for row in rows]


METRICS = ("valid", "variation", "excess", "basin", "excess_empty", "basin_empty")
KEYS = ("setting", "order", "temperature", "steps", "spacing", "predictor")


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per way and predictor: means over languages, which come in one order, and paired differences.

    ``lead``: slack-CTC's share of valid texts minus CE's. ``minus_ideal``: to that of the ideal predictions of the same
    languages, of the lead and of each arm's share. ``minus_scratch``: fine-tuned from the CE base minus as many steps
    from scratch. p-values are of sign flips, not adjusted.
    """
    rng = np.random.Generator(np.random.PCG64(0))
    values: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        for metric in METRICS:
            if metric in row:
                key = (*(row[k] for k in KEYS), row["arm"], metric)
                values.setdefault(key, []).append(row[metric])
    table = {key: np.array(value) for key, value in values.items()}
    found: list[dict[str, Any]] = []
    for cell in dict.fromkeys(key[:-2] for key in table):
        row = dict(zip(KEYS, cell, strict=True))
        for arm in SLACK_RATIOS:
            for metric in METRICS:
                if (*cell, arm, metric) in table:
                    mean = mean_interval(table[*cell, arm, metric], rng=rng)
                    row[f"{metric}_{arm}"] = rounded(mean.value)
                    if metric in ("valid", "excess"):
                        row[f"{metric}_{arm}_low"] = rounded(mean.low)
                        row[f"{metric}_{arm}_high"] = rounded(mean.high)

        def lead(predictor: str, cell: tuple[Any, ...] = cell) -> np.ndarray:
            where = (*cell[:-1], predictor)
            return table[*where, "slack_ctc", "valid"] - table[*where, "ce", "valid"]

        predictor = cell[-1]
        differences = {"lead": lead(predictor)}
        if predictor != IDEAL:
            differences["lead_minus_ideal"] = lead(predictor) - lead(IDEAL)
            for arm in SLACK_RATIOS:
                ideal = table[*cell[:-1], IDEAL, arm, "valid"]
                differences[f"valid_{arm}_minus_ideal"] = table[*cell, arm, "valid"] - ideal
        if " of CE, then " in predictor:
            scratch = f"{BASE + FINE_TUNING} steps"
            differences["lead_minus_scratch"] = lead(predictor) - lead(scratch)
        for name, paired in differences.items():
            estimate = mean_interval(paired, rng=rng)
            row[name] = rounded(estimate.value)
            row[f"{name}_low"] = rounded(estimate.low)
            row[f"{name}_high"] = rounded(estimate.high)
            row[f"{name}_p"] = rounded(sign_flip_test(paired, rng=rng))
        found.append(row | {"num_languages": len(differences["lead"])})
    return found


def rounded(value: float | None) -> float | None:
    """To four digits; missing stays missing."""
    return None if value is None else round(float(value), 4)


def main(folder: Path, *, num_languages: int, num_grammars: int) -> None:
    """Run what is missing and write the table."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    jobs = [("grammar", seed, []) for seed in range(num_grammars)]
    jobs += [("unequal", seed, TRAININGS) for seed in range(num_languages)]
    for setting, seed, trainings in jobs:
        file = folder / f"{setting}-{seed}.json"
        if not file.exists():
            write_json(file, study(setting, seed, trainings=trainings))
            print(file, flush=True)
        rows += json.loads(file.read_text(encoding="utf-8"))
    found = summary(rows)
    for row in found:
        if row["temperature"] == 1 and row["order"] == "slack and ends last":
            print(
                f"{row['setting']}, {row['steps']} steps, spacing {row['spacing']}, {row['predictor']}: "
                f"CE {row['valid_ce']}, slack-CTC {row['valid_slack_ctc']}, "
                f"{row['lead']:+.3f} [{row['lead_low']}, {row['lead_high']}]; excess "
                f"{row.get('excess_ce')}, {row.get('excess_slack_ctc')} (basin {row.get('basin_slack_ctc')})"
            )
    machine = {
        "hardware": hardware("cpu"),
        "slackdlm_version": version("slackdlm"),
        "torch_version": torch.__version__,
    }
    columns = list(dict.fromkeys(key for row in found for key in row))
    path = Path(__file__).parent / "results" / "trained_predictions.csv"
    write_csv(path, [{key: row.get(key) for key in columns} | machine for row in found])
    print("written to", path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="finished languages; continued if there are any")
    parser.add_argument("--languages", type=int, default=12, help="trained on, of `unequal`")
    parser.add_argument("--grammars", type=int, default=12, help="of `grammar`, not trained on")
    arguments = parser.parse_args()
    main(
        arguments.folder,
        num_languages=arguments.languages,
        num_grammars=arguments.grammars,
    )
