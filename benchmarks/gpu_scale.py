"""The size of a GPU check: LLaDA-8B's shapes or a rehearsal's, with its model, its clock and its CSVs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from measurement import Spread, hardware, now, spread, write_csv

from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.llada import LLaDAModelLM
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.tokenizer import train_tokenizer


@dataclass(frozen=True)
class Scale:
    """The sizes of a check: LLaDA-8B's, or a rehearsal's."""

    device: str
    dtype: torch.dtype
    lattices: tuple[tuple[int, int], ...]
    """``(L, S)`` of the correctness cases."""
    lattice_batches: tuple[tuple[int, int], ...]
    """``(B, L)`` of the lattice's times."""
    positions: tuple[int, ...]
    """``L`` of the loss cases."""
    model: LLaDAConfig
    prompt_length: int
    canvas_length: int
    decoded: tuple[tuple[int, int, int], tuple[int, int, int]]
    """Prompt, canvas and block of the decoding part: short and long."""
    paired_steps: int
    """Pairs of steps without and with an intervention."""
    repeats: int


LLADA_8B = Scale(
    device="cuda",
    dtype=torch.bfloat16,
    lattices=((64, 40), (1024, 900), (4096, 2048), (4096, 3584)),
    lattice_batches=((1, 1024), (1, 2048), (1, 4096), (8, 1024), (32, 1024)),
    positions=(1024, 2048, 4096),
    model=LLaDAConfig(mlp_hidden_size=12288),
    prompt_length=512,
    canvas_length=1536,
    decoded=((64, 64, 32), (512, 64, 32)),
    paired_steps=300,
    repeats=10,
)
REHEARSAL = Scale(
    device="cpu",
    dtype=torch.bfloat16,
    lattices=((64, 40),),
    lattice_batches=((2, 32),),
    positions=(32,),
    model=LLaDAConfig(
        vocab_size=600,
        d_model=32,
        n_layers=2,
        n_heads=2,
        mlp_hidden_size=64,
        max_sequence_length=64,
    ),
    prompt_length=8,
    canvas_length=24,
    decoded=((8, 8, 2), (16, 8, 4)),
    paired_steps=20,
    repeats=2,
)


def random_model(scale: Scale) -> LoadedModel:
    """LLaDA-8B's shapes with random weights, made where they stay; its tokenizer is a stand-in."""
    torch.manual_seed(0)
    torch.set_default_dtype(scale.dtype)
    try:
        with torch.device(scale.device):
            model = LLaDAModelLM(scale.model)
    finally:
        torch.set_default_dtype(torch.float32)
    tokenizer = train_tokenizer(["a text to fit a tokenizer to"], vocab_size=300, kind="byte_bpe")
    vocabulary = tokenizer.get_vocab()
    return LoadedModel(
        model=model.eval(),
        tokenizer=tokenizer,
        mask_id=vocabulary["<|mdm_mask|>"],
        slack_id=vocabulary["<slack>"],
        eos_ids=(vocabulary["<|endoftext|>"],),
        pad_id=vocabulary["<|endoftext|>"],
        name="random weights",
        max_length=scale.model.max_sequence_length,
    )


def time_of(run: Callable[[], object], scale: Scale) -> float:
    """Milliseconds of one run, the device's work included."""
    device = torch.device(scale.device)
    start = now(device)
    run()
    return 1000 * (now(device) - start)


def peak_of(run: Callable[[], object], scale: Scale) -> float | None:
    """Peak memory of a second run, in GiB; None on a CPU."""
    run()
    if scale.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run()
    return round(torch.cuda.max_memory_allocated() / 2**30, 3) if scale.device == "cuda" else None


def timed(run: Callable[[], object], scale: Scale) -> Spread:
    """Quantiles in milliseconds after two runs that do not count."""
    return spread([time_of(run, scale) for _ in range(scale.repeats + 2)][2:])


def write(rows: list[dict[str, object]], file: Path, scale: Scale) -> None:
    """All rows so far with the machine beside them; shows the last."""
    print(file.stem, *(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    machine = {"hardware": hardware(scale.device), "torch_version": torch.__version__}
    write_csv(file, [{**row, **machine} for row in rows])
