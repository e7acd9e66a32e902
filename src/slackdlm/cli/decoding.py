"""What every command that decodes takes: model, decoding, intervention."""

import argparse
from typing import TYPE_CHECKING

from slackdlm.errors import ConfigError

if TYPE_CHECKING:
    from slackdlm.sampling.intervention import ShiftIntervention
    from slackdlm.sampling.sampler import SamplerConfig


def add_model(parser: argparse.ArgumentParser) -> None:
    """Which model."""
    parser.add_argument("model", help="model folder or hub id")
    parser.add_argument("--adapter", help="LoRA adapter folder or hub id")


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How it decodes."""
    parser.add_argument(
        "--canvas-length", type=int, required=True, help="positions, slack and padding included"
    )
    parser.add_argument(
        "--steps", type=int, help="denoising steps (default: one per position, or by --bound)"
    )
    parser.add_argument(
        "--block-length", type=int, help="positions per block (default: the whole canvas)"
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument(
        "--remasking",
        choices=["low_confidence", "random", "entropy", "margin", "threshold", "entropy_bound"],
        default="low_confidence",
        help="which cells are decoded next (default: %(default)s)",
    )
    parser.add_argument(
        "--bound", type=float, help="confidence of threshold, or nats of entropy_bound"
    )
    parser.add_argument(
        "--guidance", type=float, default=0.0, help="classifier-free guidance (default: none)"
    )
    for flag, what in (
        ("--forbid-end-of-text", "never propose the end of text"),
        ("--delay-end", "decode cells that propose an end last"),
        ("--delay-slack", "decode cells that propose <slack> last"),
        ("--early-stop", "rest once the text is settled; does not change it"),
    ):
        parser.add_argument(flag, action="store_true", help=what)
    parser.add_argument(
        "--refill",
        type=int,
        default=0,
        help="further steps for the least certain slack (default: 0)",
    )
    parser.add_argument(
        "--cache",
        choices=["none", "prefix", "dual"],
        default="none",
        help="keep keys and values within a block; changes answers (default: none)",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=16)


def add_intervention(parser: argparse.ArgumentParser) -> None:
    """What disturbs the decoding."""
    parser.add_argument(
        "--intervention",
        choices=["shift", "substitute", "drop", "swap"],
        help="disturb the decoding",
    )
    parser.add_argument("--direction", choices=["left", "right", "both"], default="both")
    parser.add_argument("--when", choices=["always", "early", "late"], default="always")
    parser.add_argument(
        "--rate", type=float, help="share of content tokens the intervention touches"
    )


def intervention(arguments: argparse.Namespace) -> "ShiftIntervention | None":
    """What disturbs the decoding, from the flags of :func:`add_intervention`."""
    from slackdlm.sampling.intervention import ShiftIntervention

    if (arguments.intervention is None) != (arguments.rate is None):
        raise ConfigError("--intervention and --rate: give both or neither")
    if arguments.intervention is None:
        return None
    return ShiftIntervention(
        arguments.rate,
        kind=arguments.intervention,
        direction=arguments.direction,
        when=arguments.when,
        seed=arguments.seed,
    )


def decoding(arguments: argparse.Namespace) -> "SamplerConfig":
    """How to decode, from the flags of :func:`add_decoding`."""
    from slackdlm.sampling.sampler import SamplerConfig

    if arguments.seed < 0:
        raise ConfigError(f"--seed: expected at least 0, got {arguments.seed}")
    return SamplerConfig(
        canvas_length=arguments.canvas_length,
        steps=arguments.steps,
        block_length=arguments.block_length,
        temperature=arguments.temperature,
        remasking=arguments.remasking,
        bound=arguments.bound,
        guidance=arguments.guidance,
        forbid_end_of_text=arguments.forbid_end_of_text,
        delay_end=arguments.delay_end,
        delay_slack=arguments.delay_slack,
        early_stop=arguments.early_stop,
        refill=arguments.refill,
        cache=arguments.cache,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
    )
