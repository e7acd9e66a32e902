"""What must the losses be? Plain enumeration in float64: no torch, nothing of ours, nothing clever.

Every way of filling the masked positions is written out, collapsed, and its probability added up
with ``math.fsum``. Axis letters: ``L`` canvas positions, ``V`` vocabulary.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence

Rows = Sequence[Sequence[float]]


def log_softmax(logits: Sequence[float]) -> list[float]:
    """Log-probabilities of one position."""
    top = max(logits)
    log_sum = top + math.log(math.fsum(math.exp(x - top) for x in logits))
    return [x - log_sum for x in logits]


def collapse(path: Sequence[int], slack_id: int, mode: str = "slack") -> list[int]:
    """The tokens a filled canvas stands for."""
    tokens: list[int] = []
    for i, token in enumerate(path):
        is_repeat = i > 0 and path[i - 1] == token
        if token != slack_id and not (mode == "graves" and is_repeat):
            tokens.append(token)
    return tokens


def fillings(canvas: Sequence[int], mask_id: int, vocab_size: int) -> Iterator[tuple[int, ...]]:
    """Every way to fill the masked positions; visible ones stay as they are."""
    return itertools.product(*(range(vocab_size) if t == mask_id else (t,) for t in canvas))


def path_probability(
    log_probs: Rows, canvas: Sequence[int], path: Sequence[int], mask_id: int
) -> float:
    """Probability of one filling: the product over the masked positions."""
    return math.exp(math.fsum(log_probs[i][t] for i, t in enumerate(path) if canvas[i] == mask_id))


def paths_to(
    logits: Rows,
    canvas: Sequence[int],
    target: Sequence[int],
    mask_id: int,
    slack_id: int,
    mode: str,
) -> list[tuple[tuple[int, ...], float]]:
    """Every filling that collapses to the target, with its probability."""
    log_probs = [log_softmax(row) for row in logits]
    return [
        (path, path_probability(log_probs, canvas, path, mask_id))
        for path in fillings(canvas, mask_id, len(logits[0]) if logits else 0)
        if collapse(path, slack_id, mode) == list(target)
    ]


def slack_ctc(
    logits: Rows,
    canvas: Sequence[int],
    target: Sequence[int],
    *,
    mask_id: int,
    slack_id: int,
    mode: str = "slack",
) -> float:
    """``-log P[collapse(fill(canvas)) = target]`` in nats; ``inf`` if impossible."""
    total = math.fsum(p for _, p in paths_to(logits, canvas, target, mask_id, slack_id, mode))
    return -math.log(total) if total > 0 else math.inf


def slack_ctc_gradient(
    logits: Rows,
    canvas: Sequence[int],
    target: Sequence[int],
    *,
    mask_id: int,
    slack_id: int,
    mode: str = "slack",
) -> list[list[float]]:
    """Its gradient: softmax minus posterior where masked, else 0; 0 if impossible."""
    paths = paths_to(logits, canvas, target, mask_id, slack_id, mode)
    total = math.fsum(p for _, p in paths)
    gradient = [[0.0] * len(row) for row in logits]
    if total > 0:
        for i, row in enumerate(logits):
            if canvas[i] == mask_id:
                for v, log_prob in enumerate(log_softmax(row)):
                    posterior = math.fsum(p for path, p in paths if path[i] == v) / total
                    gradient[i][v] = math.exp(log_prob) - posterior
    return gradient


def masked_ce(logits: Rows, canvas: Sequence[int], clean: Sequence[int], *, mask_id: int) -> float:
    """Cross-entropy summed over the masked positions, in nats."""
    return -math.fsum(
        log_softmax(row)[clean[i]] for i, row in enumerate(logits) if canvas[i] == mask_id
    )


def likelihood_bound(
    predict: Callable[[list[int]], Rows],
    target: Sequence[int],
    *,
    mask_id: int,
    forbidden: Sequence[int] = (),
) -> float:
    """LLaDA's lower bound of ``log p(target)`` in nats, over every number and choice of masked cells.

    ``predict`` gives the logits of all cells of a canvas; ``forbidden`` tokens have probability 0.
    """
    length = len(target)
    of_size: list[float] = []
    for size in range(1, length + 1):
        sums: list[float] = []
        for masked in itertools.combinations(range(length), size):
            canvas = [mask_id if i in masked else token for i, token in enumerate(target)]
            logits = [
                [-math.inf if v in forbidden else float(x) for v, x in enumerate(row)]
                for row in predict(canvas)
            ]
            sums.append(math.fsum(log_softmax(logits[i])[target[i]] for i in masked))
        of_size.append(length / size * math.fsum(sums) / len(sums))
    return math.fsum(of_size) / length
