"""What do training objectives ask for, exactly? Small languages whose every canvas is listed, and predictors of them.

Matched CE asks for the marginal of each masked cell, by enumeration in float64; slack-CTC's optimum is found by
expectation-maximisation. ``ideal_predictions.py`` and ``trained_predictions.py`` decode them.
"""

from collections.abc import Callable
from functools import cache
from itertools import combinations, pairwise, product
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

from slackdlm.models.loaded import LoadedModel
from slackdlm.models.special_tokens import END_OF_TEXT, MASK, SLACK, special_id
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.study.toy_language import P_ADJECTIVE, P_ADVERB, P_TRANSITIVE

OPENINGS = {"unequal": ("a", "b c", "d e f"), "equal": ("a b", "c d", "e f")}
MIDDLES = ("g h", "i j", "k l", "m n")
ENDINGS = ("o p", "q r", "s t", "u v")
NUM_FOLLOWERS = 3
"""Of the four next phrases, how many a phrase allows."""
SLACK_RATIO = 0.5
"""The largest; the smallest is 0."""
CANVAS_LENGTH = 10
"""The longest sentence, 7 words, and its most slack, 3."""
NUM_STARTS = 32
FLOOR = 1e-30
"""Stands for a probability of 0, which the sampler's matrix product could not carry as a logarithm."""
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


def grammar(seed: int) -> dict[Sentence, float]:
    """Sentences as kinds of words with their probabilities: ``a [b] c (d | e a [b] c) [f] g``.

    How likely each optional part is, is drawn around the demo's values.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    chances = [P_ADJECTIVE, P_TRANSITIVE, P_ADJECTIVE, P_ADVERB]
    adjective, transitive, second_adjective, adverb = rng.beta(
        4 * np.array(chances), 4 * (1 - np.array(chances))
    )
    found: dict[Sentence, float] = {}

    def noun_phrases(chance: float) -> list[tuple[str, float]]:
        return [("a c", 1 - chance), ("a b c", chance)]

    objects = [
        (f"e {words}", transitive * share) for words, share in noun_phrases(second_adjective)
    ]
    for subject, share in noun_phrases(adjective):
        for verb, verb_share in [("d", 1 - transitive), *objects]:
            for end, end_share in (("g", 1 - adverb), ("f g", adverb)):
                text = f"{subject} {verb} {end}"
                ids = tokenizer().encode(text, add_special_tokens=False)
                found[tuple(ids)] = float(share * verb_share * end_share)
    return found


def language_of(setting: str, seed: int) -> dict[Sentence, float]:
    """A random language of a setting."""
    return grammar(seed) if setting == "grammar" else sentences(setting, seed)


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
