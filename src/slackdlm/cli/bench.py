"""``slackdlm bench``: time and memory on this machine."""

import argparse
from dataclasses import fields, replace
from pathlib import Path

from rich.console import Console
from rich.text import Text

from slackdlm.cli.commands import Commands
from slackdlm.cli.outputs import check_output_file
from slackdlm.terminal import table


def add_bench(commands: Commands) -> None:
    """Add the command."""
    bench = commands.add_parser("bench", help="time and memory on this machine")
    subjects = bench.add_subparsers(title="subjects", required=True, metavar="SUBJECT")
    decode = subjects.add_parser("decode", help="decoding, against LLaDA's algorithm as published")
    parser = subjects.add_parser("loss", help="the losses")
    for each, name, repeats in ((parser, "loss", 5), (decode, "decode", 3)):
        file = Path(f"{name}_bench.csv")
        each.add_argument("--output", type=Path, default=file, help="CSV file")
        each.add_argument(
            "--repeats",
            type=int,
            default=repeats,
            help="timed runs, at least 2 (default: %(default)s)",
        )
        each.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    for flag, what in (
        ("--prompt-length", "prompt tokens"),
        ("--canvas-length", "canvas positions L"),
        ("--block-length", "positions per block"),
        ("--hidden-size", "hidden size D"),
        ("--num-layers", "layers"),
        ("--vocab-size", "vocabulary V"),
    ):
        decode.add_argument(flag, type=int, help=what)
    decode.set_defaults(run=_bench_decode)
    for flag, default, what in (
        ("--batch", 1, "samples B"),
        ("--positions", 1024, "canvas positions L"),
        ("--hidden", 256, "hidden size D"),
        ("--vocabulary", 126464, "vocabulary V"),
    ):
        parser.add_argument(flag, type=int, default=default, help=f"{what} (default: {default})")
    parser.add_argument(
        "--slack", type=int, help="slack budget K (default: 64, at most an eighth of the positions)"
    )
    parser.set_defaults(run=_bench_loss)


def _bench_decode(arguments: argparse.Namespace) -> None:
    check_output_file("--output", arguments.output)
    from slackdlm.sampling.bench import Size, bench_decode, write_rows

    names = [field.name for field in fields(Size)]
    given = {name: value for name, value in vars(arguments).items() if name in names}
    size = replace(Size(), **{name: value for name, value in given.items() if value is not None})
    console = Console()
    with console.status("measuring; at V = 126,464 this takes minutes"):
        rows = list(bench_decode(size, repeats=arguments.repeats, device=arguments.device))
    write_rows(rows, arguments.output)
    headings = ("algorithm", "p20 ms", "p50 ms", "p80 ms", "tokens/s", "forwards/token", "MiB*")
    lines: list[list[str]] = []
    for row in rows:
        figures = (row.p20_ms, row.p50_ms, row.p80_ms, row.tokens_per_second)
        shown = [f"{figure:.1f}" for figure in figures]
        memory = f"{row.peak_tensor_mib:.1f}"
        lines.append([row.provider, *shown, f"{row.forwards_per_token:.3f}", memory])
    console.print(table(f"{size}", headings, lines, words=("algorithm",), width=console.width))
    console.print(Text("* most that tensors took at one time, beside weights and prompts"))
    for row in rows:
        if row.step_ratio is not None:
            ratio = f"{row.provider}: a step takes {row.step_ratio:.3f} times as long as without"
            console.print(Text(ratio))
    console.print(Text(f"written to {arguments.output}"))


def _bench_loss(arguments: argparse.Namespace) -> None:
    check_output_file("--output", arguments.output)
    from slackdlm.objectives.bench import Size, bench_loss, write_rows

    size = Size(
        num_samples=arguments.batch,
        num_positions=arguments.positions,
        num_slack=min(64, arguments.positions // 8) if arguments.slack is None else arguments.slack,
        hidden_size=arguments.hidden,
        vocab_size=arguments.vocabulary,
    )
    console = Console()
    with console.status("measuring; at V = 126,464 this takes minutes"):
        rows = list(bench_loss(size, repeats=arguments.repeats, device=arguments.device))
    write_rows(rows, arguments.output)
    headings = ("loss", "mode", "p20 ms", "p50 ms", "p80 ms", "CPU p50 ms", "extra MiB")
    lines: list[list[str]] = []
    for row in rows:
        figures = (row.p20_ms, row.p50_ms, row.p80_ms, row.cpu_p50_ms, row.peak_extra_mib)
        shown = ("–" if figure is None else f"{figure:.1f}" for figure in figures)
        lines.append([row.provider, row.mode, *shown])
    words = ("loss", "mode")
    console.print(table(f"{size}", headings, lines, words=words, width=console.width))
    console.print(Text(f"written to {arguments.output}"))
