"""What does decoding cost? LLaDA's algorithm as published and ours, on the same weights and prompts, in one go."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from measurement import check_benchmark, hardware, most_held, now, spread
from torch import Tensor, nn

from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import new_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.sampling.config import SamplerConfig
from slackdlm.sampling.decoding import Decoding
from slackdlm.sampling.intervention import ShiftIntervention

THRESHOLD = 0.9


@dataclass(frozen=True)
class Size:
    """The size of one benchmark."""

    prompt_length: int = 32
    canvas_length: int = 32
    """``L``."""
    block_length: int = 16
    hidden_size: int = 128
    """``D``."""
    num_layers: int = 2
    vocab_size: int = 126_464
    """``V``."""
    sharpness: float = 20.0
    """Factor on the random head: at 20 a few cells of a pass reach a confidence of 0.9, as in trained models."""


@dataclass(frozen=True)
class Row:
    """One line of the results."""

    provider: str
    """Which algorithm."""
    temperature: float
    batch: int
    """Prompts decoded together."""
    prompt_length: int
    canvas_length: int
    block_length: int
    hidden_size: int
    num_layers: int
    vocab_size: int
    sharpness: float
    dtype: str
    p20_ms: float
    """Quantiles of the wall time of decoding all prompts, in milliseconds."""
    p50_ms: float
    p80_ms: float
    tokens_per_second: float
    """Canvas cells of all prompts per second of the median."""
    forwards_per_token: float
    same_tokens: float | None
    """Share of cells equal to the published algorithm's at the same temperature; None where noise differs."""
    step_ratio: float | None
    """Where an intervention is installed: median over pairs of steps, one without it and the same one with it, run one
    after the other, of the ratio of their times."""
    peak_tensor_mib: float
    """Most memory that tensors took at one time, weights and prompts not counted: exact, in a run that is not timed."""
    repeats: int
    num_threads: int
    hardware: str
    torch_version: str
    timestamp: str
    note: str
    """Anything a reader of the numbers must know."""


class Decoded(NamedTuple):
    """What one run of a provider gives."""

    canvases: list[list[int]]
    num_forwards: int
    """Of all prompts."""


Provider = Callable[[LoadedModel, Size, list[list[int]], float], Decoded]


def published(
    loaded: LoadedModel, size: Size, prompts: list[list[int]], temperature: float
) -> Decoded:
    """LLaDA's ``generate``, restated: logits, float64 noise and softmax of the whole sequence in every step.

    One token a step, in blocks. The mask is ruled out, so that tokens can be compared with ours.
    """
    canvases: list[list[int]] = []
    for prompt in prompts:
        x = torch.tensor([prompt + [loaded.mask_id] * size.canvas_length])
        x = x.to(loaded.device)
        for end in range(size.block_length, size.canvas_length + 1, size.block_length):
            for _ in range(size.block_length):
                _published_step(loaded, x, len(prompt) + end, temperature)
        canvases.append(x[0, len(prompt) :].tolist())
    return Decoded(canvases, size.canvas_length * len(prompts))


@torch.no_grad()
def _published_step(
    loaded: LoadedModel, x: Int[Tensor, "B S"], block_end: int, temperature: float
) -> None:
    logits = loaded.model(input_ids=x).logits
    noisy = logits
    if temperature > 0:
        noisy = logits.to(torch.float64)
        uniforms = torch.rand_like(noisy, dtype=torch.float64)
        noisy = noisy.exp() / (-torch.log(uniforms)) ** temperature
    noisy[..., loaded.mask_id] = -torch.inf
    proposed = noisy.argmax(dim=-1)
    probs = torch.softmax(logits, dim=-1)
    confidence = probs.gather(-1, proposed[..., None])[..., 0]
    confidence[:, block_end:] = -torch.inf
    masked = x == loaded.mask_id
    confidence = torch.where(masked, confidence, -torch.inf)
    chosen = confidence[0].topk(1).indices
    x[0, chosen] = proposed[0, chosen]


def ours(**settings: Any) -> Provider:
    """The sampler with these settings, among them ``intervention``; one token a step unless they say otherwise."""

    def provider(
        loaded: LoadedModel, size: Size, prompts: list[list[int]], temperature: float
    ) -> Decoded:
        decoding = _decoding(loaded, size, prompts, temperature=temperature, **settings)
        answers = decoding.run()
        return Decoded([a.canvas for a in answers], sum(a.num_forwards for a in answers))

    return provider


def _decoding(
    loaded: LoadedModel,
    size: Size,
    prompts: list[list[int]],
    *,
    intervention: ShiftIntervention | None = None,
    **settings: Any,
) -> Decoding:
    config = SamplerConfig(
        canvas_length=size.canvas_length, block_length=size.block_length, **settings
    )
    return Decoding(loaded, config, intervention, prompts, list(range(len(prompts))))


def singly(provider: Provider) -> Provider:
    """The same, one prompt after the other."""

    def one_by_one(
        loaded: LoadedModel, size: Size, prompts: list[list[int]], temperature: float
    ) -> Decoded:
        each = [provider(loaded, size, [prompt], temperature) for prompt in prompts]
        return Decoded(
            [canvas for decoded in each for canvas in decoded.canvases],
            sum(decoded.num_forwards for decoded in each),
        )

    return one_by_one


class Case(NamedTuple):
    """A provider with what it is given."""

    provider: Provider
    batch: int = 1
    temperature: float = 0.0
    intervention: ShiftIntervention | None = None
    """Installed by the provider: what it costs a step is measured too."""


_SHIFT = ShiftIntervention(0.01, seed=0)
CASES: dict[str, Case] = {
    "published": Case(published),
    "exact": Case(ours()),
    "exact, shift 1 %": Case(ours(intervention=_SHIFT), intervention=_SHIFT),
    "prefix cache": Case(ours(cache="prefix")),
    "dual cache": Case(ours(cache="dual")),
    "threshold": Case(ours(remasking="threshold", bound=THRESHOLD)),
    "threshold, dual cache": Case(ours(remasking="threshold", bound=THRESHOLD, cache="dual")),
    "exact, 8 singly": Case(singly(ours()), batch=8),
    "exact, batch of 8": Case(ours(), batch=8),
    "published, temperature 1": Case(published, temperature=1.0),
    "exact, temperature 1": Case(ours(), temperature=1.0),
}


def bench_decode(
    size: Size,
    *,
    cases: dict[str, Case] | None = None,
    loaded: LoadedModel | None = None,
    repeats: int = 3,
    paired_steps: int = 1000,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    note: str = "",
) -> Iterator[Row]:
    """Time every case, one run of each in turn, so that a busy moment of the machine meets all of them.

    Args:
        size: Model, prompts and canvas.
        cases: What is timed, by name; None: ``CASES``.
        loaded: A model of this size where it is to run, as on ``device``; None: a random one, made on the CPU.
        repeats: Timed runs, at least 2, after one that is not. One more measures memory.
        paired_steps: Least number of pairs of steps, without and with an intervention, that are timed in turn.
        device: Where to run.
        dtype: Of the weights.
        note: Copied into every row.

    Raises:
        ConfigError: If there are too few repeats or the device is missing.

    Yields:
        One row per case.
    """
    check_benchmark(repeats=repeats, device=device)
    cases = CASES if cases is None else cases
    if loaded is None:
        loaded = make_model(size, device=device, dtype=dtype)
    runs: dict[str, list[tuple[float, Decoded]]] = {name: [] for name in cases}
    for _ in range(repeats + 1):
        for name, case in cases.items():
            runs[name].append(_run(loaded, size, case))
    for name in cases:
        walls = [wall_ms for wall_ms, _ in runs[name][1:]]
        row = _row(loaded, size, cases[name], runs[name][0][1], walls)
        expected = {
            (c.temperature, c.batch): runs[n][0][1]
            for n, c in cases.items()
            if c.provider is published and c.temperature == 0
        }
        other = expected.get((cases[name].temperature, cases[name].batch))
        yield Row(
            provider=name,
            **row,
            dtype=str(dtype).removeprefix("torch."),
            same_tokens=None if other is None else _share_equal(runs[name][0][1], other),
            step_ratio=_step_ratio(loaded, size, cases[name], num_pairs=paired_steps),
            repeats=repeats,
            num_threads=torch.get_num_threads(),
            hardware=hardware(device),
            torch_version=torch.__version__,
            timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
            note=note,
        )


def _row(
    loaded: LoadedModel, size: Size, case: Case, decoded: Decoded, walls: list[float]
) -> dict[str, Any]:
    """What the runs of a case say of its speed and memory."""
    num_cells, prompts = size.canvas_length * case.batch, _prompts(size, case)
    wall = spread(walls)
    num_bytes = most_held(
        lambda: case.provider(loaded, size, prompts, case.temperature), loaded.device
    )
    return asdict(size) | {
        "temperature": case.temperature,
        "batch": case.batch,
        "p20_ms": round(wall.p20, 2),
        "p50_ms": round(wall.p50, 2),
        "p80_ms": round(wall.p80, 2),
        "tokens_per_second": round(1000 * num_cells / wall.p50, 2),
        "forwards_per_token": round(decoded.num_forwards / num_cells, 4),
        "peak_tensor_mib": round(num_bytes / 2**20, 1),
    }


def make_model(size: Size, *, device: str, dtype: torch.dtype) -> LoadedModel:
    """A random model of this size, its logits sharpened."""
    tokenizer = train_tokenizer(["a b c d e f g h"], vocab_size=64, kind="word")
    config = LLaDAConfig(
        vocab_size=size.vocab_size,
        d_model=size.hidden_size,
        n_layers=size.num_layers,
        n_heads=max(1, size.hidden_size // 64),
        mlp_hidden_size=4 * size.hidden_size,
        max_sequence_length=size.prompt_length + size.canvas_length,
    )
    loaded = new_model(config, tokenizer, generator_seed=0)
    head: Any = loaded.model.get_output_embeddings()
    with torch.no_grad():
        head.weight *= size.sharpness
    nn.Module.to(loaded.model, torch.device(device), dtype)
    return loaded


def _run(loaded: LoadedModel, size: Size, case: Case) -> tuple[float, Decoded]:
    """Milliseconds of one run, and what it decoded."""
    device, prompts = loaded.device, _prompts(size, case)
    start = now(device)
    decoded = case.provider(loaded, size, prompts, case.temperature)
    return 1000 * (now(device) - start), decoded


def _prompts(size: Size, case: Case) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 8, (case.batch, size.prompt_length), generator=generator).tolist()


def _step_ratio(loaded: LoadedModel, size: Size, case: Case, *, num_pairs: int) -> float | None:
    if case.intervention is None:
        return None
    device, prompts = loaded.device, _prompts(size, case)
    ratios: list[float] = []
    while len(ratios) < num_pairs:
        plain, disturbed = (
            _decoding(
                loaded, size, prompts, temperature=case.temperature, intervention=each
            ).steps()
            for each in (None, case.intervention)
        )
        for place in count():
            if place % 2 == 0:
                without, beside = _step_seconds(plain, device), _step_seconds(disturbed, device)
            else:
                beside, without = _step_seconds(disturbed, device), _step_seconds(plain, device)
            if without is None or beside is None:
                break
            ratios.append(beside / without)
    return round(statistics.median(ratios), 4)


def _step_seconds(steps: Iterator[None], device: torch.device) -> float | None:
    """Seconds of the next step; None if there is none."""
    start = now(device)
    is_over = next(steps, True)
    return None if is_over else now(device) - start


def _share_equal(found: Decoded, expected: Decoded) -> float:
    pairs = zip(found.canvases, expected.canvases, strict=True)
    equal = [a == b for row in pairs for a, b in zip(*row, strict=True)]
    return round(sum(equal) / len(equal), 4)
