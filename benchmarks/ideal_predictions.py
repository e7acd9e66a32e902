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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from importlib.metadata import version
from itertools import combinations, pairwise, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from measurement import hardware, write_csv
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

from slackdlm.models.loaded import LoadedModel
from slackdlm.models.special_tokens import END_OF_TEXT, MASK, SLACK, special_id
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.sampling.sampler import Sampler, SamplerConfig
from slackdlm.statistics import benjamini_hochberg, mean_interval, sign_flip_test

OPENINGS = {"unequal": ("a", "b c", "d e f"), "equal": ("a b", "c d", "e f")}
MIDDLES = ("g h", "i j", "k l", "m n")
ENDINGS = ("o p", "q r", "s t", "u v")
NUM_FOLLOWERS = 3
"""Of the four next phrases, how many a phrase allows."""
SLACK_RATIO = 0.5
"""The largest; the smallest is 0."""
CANVAS_LENGTH = 10
"""The longest sentence, 7 words, and its most slack, 3."""
STEPS = (1, 2, 3, 5, 10)
SPACING = 4
NUM_SAMPLES = 64
"""Texts of a language at temperature 1."""
NUM_STARTS = 32
FLOOR = 1e-30
"""Stands for a probability of 0, which the sampler's matrix product could not carry as a logarithm."""
ARMS = ("ce", "ce_slack", "slack_ctc", "slack_ctc_first")
"""The last is slack-CTC searched for from CE's marginals alone, to see what the choice of the optimum does."""
ORDERS = {
    "plain": {},
    "slack last": {"delay_slack": True},
    "slack and ends last": {"delay_slack": True, "delay_end": True},
}
Sentence = tuple[int, ...]


class Canvases(NamedTuple):
    """Every clean canvas of an arm."""

    tokens: Int[np.ndarray, "N L"]
    weight: Float[np.ndarray, " N"]
    """Probabilities; they sum to 1."""
    group: Int[np.ndarray, " N"]
    """Ascending; canvases of one sentence and one amount of slack share a number: slack-CTC sums over them."""


class Optimum(NamedTuple):
    """Where the search for slack-CTC's predictor ended."""

    probs: Float[np.ndarray, "M V"]
    loss: float
    """Expected slack-CTC loss in nats, end-of-text behind the content by CE."""
    gradient: float
    """Largest absolute derivative of the loss by a logit."""
    agreement: float
    """Share of the starts that ended within 1e-6 nats of the best."""


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Of both settings: their words are the same."""
    return train_tokenizer([" ".join("abcdefghijklmnopqrstuv")], vocab_size=64, kind="word")


def token_id(token: str) -> int:
    """The id of a special token."""
    found = special_id(tokenizer(), token)
    if found is None:
        raise ValueError(f"no token {token}")
    return found


def sentences(setting: str, seed: int) -> dict[Sentence, float]:
    """A random language: each sentence with its probability.

    Three phrases; which may follow which, and how often, is drawn alike for both settings.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    phrases = (OPENINGS[setting], MIDDLES, ENDINGS)
    follows: list[np.ndarray] = [rng.dirichlet(np.ones(len(phrases[0])))[None]]
    for before, after in pairwise(phrases):
        table = np.zeros((len(before), len(after)))
        for row in table:
            row[rng.permutation(len(after))[:NUM_FOLLOWERS]] = rng.dirichlet(np.ones(NUM_FOLLOWERS))
        follows.append(table)
    found: dict[Sentence, float] = {}
    for kinds in product(*(range(len(slot)) for slot in phrases)):
        probability = float(
            follows[0][0, kinds[0]]
            * follows[1][kinds[0], kinds[1]]
            * follows[2][kinds[1], kinds[2]]
        )
        if probability > 0:
            text = " ".join(slot[kind] for slot, kind in zip(phrases, kinds, strict=True))
            ids = tokenizer().encode(text, add_special_tokens=False)
            found[tuple(ids)] = probability
    return found


def slack_budgets(length: int, *, slack_ratio: float) -> dict[int, float]:
    """How likely is each number of slack tokens for so many words? As `slackdlm.canvas.draw_num_slack` draws it."""
    most = slack_ratio * length
    shares = {
        k: (min(k + 0.5, most) - max(k - 0.5, 0.0)) / most if most > 0 else 1.0
        for k in range(int(most + 0.5) + 1)
    }
    return {k: share for k, share in shares.items() if share > 0}


def canvases(
    language: dict[Sentence, float], *, slack_ratio: float, canvas_length: int
) -> Canvases:
    """All placements of all amounts of slack, end-of-text behind the content."""
    slack, end = token_id(SLACK), token_id(END_OF_TEXT)
    rows: list[list[int]] = []
    weight: list[float] = []
    group: list[int] = []
    for sentence, probability in language.items():
        for num_slack, share in slack_budgets(len(sentence), slack_ratio=slack_ratio).items():
            content = len(sentence) + num_slack
            places = list(combinations(range(content), num_slack))
            number = group[-1] + 1 if group else 0
            for place in places:
                words = iter(sentence)
                row = [slack if i in place else next(words) for i in range(content)]
                rows.append(row + [end] * (canvas_length - content))
                weight.append(probability * share / len(places))
                group.append(number)
    return Canvases(np.array(rows), np.array(weight), np.array(group))


def matching(table: Canvases, canvas: Int[np.ndarray, " L"]) -> Canvases:
    """The masked cells of the canvases that a pattern may have come from: those that fit it best."""
    masked = canvas == token_id(MASK)
    agreement = (table.tokens == canvas)[:, ~masked].sum(axis=1)
    fits = agreement == agreement.max()
    weight = table.weight[fits]
    return Canvases(table.tokens[fits][:, masked], weight / weight.sum(), table.group[fits])


def marginals(table: Canvases) -> Float[np.ndarray, "M V"]:
    """What CE asks for: each cell's distribution given what is visible. Exact."""
    probs = np.zeros((table.tokens.shape[1], len(tokenizer())))
    for position, tokens in enumerate(table.tokens.T):
        np.add.at(probs[position], tokens, table.weight)
    return probs


def slack_ctc_optimum(
    table: Canvases,
    *,
    num_starts: int = NUM_STARTS,
    first_start: Float[np.ndarray, "M V"] | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 5000,
) -> Optimum:
    """What slack-CTC asks for, as far as it can be found.

    With group weights ``w_g`` the loss is ``-sum_g w_g log sum_{c in g} prod_i q_i(c_i)``. EM: weigh each canvas of a
    group by its share of the group's sum, then let ``q`` be the marginals under these weights. The loss never rises,
    and ``q`` minus the new ``q`` is its gradient by the logits. The first start are CE's marginals unless given, the
    others these times log-normal noise.
    """
    num_cells, num_tokens = table.tokens.shape[1], len(tokenizer())
    places = np.arange(num_cells) * num_tokens + table.tokens
    columns, which = np.unique(places, return_inverse=True)
    design = np.zeros((len(places), len(columns)))
    np.put_along_axis(design, which.reshape(places.shape), 1.0, axis=1)
    first = np.flatnonzero(np.diff(table.group, prepend=-1))
    member = np.repeat(np.arange(len(first)), np.diff(np.append(first, len(places))))
    group_weight = np.add.reduceat(table.weight, first)

    start = table.weight @ design if first_start is None else first_start.ravel()[columns]
    q = np.tile(start, (num_starts, 1))
    rng = np.random.Generator(np.random.PCG64(0))
    q[1:] *= np.exp(rng.standard_normal(q[1:].shape))
    cell = columns // num_tokens
    q /= (q @ (cell[:, None] == np.arange(num_cells)).astype(float))[:, cell]

    loss, gradient = np.full(num_starts, np.inf), np.full(num_starts, np.inf)
    moving = np.arange(num_starts)
    for _ in range(max_iterations):
        before = q[moving]
        scores = np.log(np.maximum(before, FLOOR)) @ design.T
        highest = np.maximum.reduceat(scores, first, axis=1)
        shares = np.exp(scores - highest[:, member])
        sums = np.add.reduceat(shares, first, axis=1)
        shares *= (group_weight / sums)[:, member]
        q[moving] = shares @ design
        loss[moving] = -(highest + np.log(sums)) @ group_weight
        gradient[moving] = np.abs(q[moving] - before).max(axis=1)
        moving = moving[gradient[moving] >= tolerance]
        if not len(moving):
            break
    best = int(np.argmax(loss <= loss.min() + 1e-9))
    probs = np.zeros(num_cells * num_tokens)
    probs[columns] = q[best]
    return Optimum(
        probs.reshape(num_cells, num_tokens),
        float(loss[best]),
        float(gradient[best]),
        float((loss <= loss.min() + 1e-6).mean()),
    )


class Ideal:
    """Log-probabilities of every cell for any visible pattern, kept once computed.

    Args:
        table: The arm's canvases.
        predict: From the masked cells of the matching canvases to their distributions.
    """

    def __init__(
        self, table: Canvases, predict: Callable[[Canvases], Float[np.ndarray, "M V"]]
    ) -> None:
        self.table = table
        self.predict = predict
        self.known: dict[bytes, np.ndarray] = {}

    def __call__(self, canvas: Int[np.ndarray, " L"]) -> Float[np.ndarray, "L V"]:
        """Rows of visible cells are zero."""
        key = canvas.tobytes()
        if key not in self.known:
            states = np.zeros((len(canvas), len(tokenizer())))
            probs = self.predict(matching(self.table, canvas))
            # Rounded, so that equal probabilities are equal however they were added up.
            states[canvas == token_id(MASK)] = np.log(np.maximum(probs.round(9), FLOOR))
            self.known[key] = states
        return self.known[key]


class IdealModel(PreTrainedModel):
    """A network for the sampler whose hidden states are log-probabilities and whose output layer is the identity."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig, ideal: Ideal, canvas_length: int) -> None:
        super().__init__(config)
        self.ideal = ideal
        self.canvas_length = canvas_length
        size = len(tokenizer())
        self.head = nn.Linear(size, size, bias=False, dtype=torch.float64)
        self.head.weight.data = torch.eye(size, dtype=torch.float64)

    def get_output_embeddings(self) -> nn.Linear:
        """The identity."""
        return self.head

    def forward(
        self,
        input_ids: Int[Tensor, "R P"],
        attention_mask: Tensor | None = None,
        logits: bool = True,
    ) -> BaseModelOutput:
        """Zero states for the prompt."""
        states = torch.zeros(*input_ids.shape, len(tokenizer()), dtype=torch.float64)
        for row, canvas in enumerate(input_ids[:, -self.canvas_length :].numpy()):
            states[row, -self.canvas_length :] = torch.from_numpy(self.ideal(canvas))
        return BaseModelOutput(last_hidden_state=states)


def loaded_model(ideal: Ideal, *, canvas_length: int) -> LoadedModel:
    """The predictor as the sampler takes it."""
    end = token_id(END_OF_TEXT)
    return LoadedModel(
        model=IdealModel(PreTrainedConfig(), ideal, canvas_length),
        tokenizer=tokenizer(),
        mask_id=token_id(MASK),
        slack_id=token_id(SLACK),
        eos_ids=(end,),
        pad_id=end,
        name="ideal predictions",
        max_length=canvas_length + 1,
    )


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
