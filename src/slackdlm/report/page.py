"""One self-contained HTML page: styles, script, plots and data inside it, nothing fetched from anywhere."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from slackdlm.atomic import write_bytes, write_text
from slackdlm.errors import DataError
from slackdlm.report import plots, replay, tables
from slackdlm.report.results import METRICS, Results, arm_labels, checked, clean, probed_panels
from slackdlm.report.results import temperatures as all_temperatures

HERE = Path(__file__).parent


class Plot(NamedTuple):
    """One figure, to be drawn in any theme."""

    name: str
    title: str
    caption: str
    draw: Callable[[plots.Theme], Figure]


def write_report(results: Results, folder: Path) -> Path:
    """Write ``report.html``, ``table.md`` and ``plots/*.png`` into a folder.

    The same results give the same bytes. Everything in ``results`` counts as untrusted text.

    Args:
        results: What ``results.json`` holds; `slackdlm.report.schema.SHAPE` names its sections.
        folder: Where to write; made if missing. Files of the same names are replaced.

    Returns:
        The HTML file.

    Raises:
        DataError: If a section, a row's key or a cell state is missing or unknown.
    """
    results = checked(results)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, str]] = []
    for plot in figures(results):
        light, dark = plot.draw(plots.LIGHT), plot.draw(plots.DARK)
        write_bytes(folder / "plots" / f"{plot.name}.png", plots.to_png(light))
        images.append(
            {
                "name": plot.name,
                "title": plot.title,
                "caption": plot.caption,
                "light": data_uri(plots.to_svg(light)),
                "dark": data_uri(plots.to_svg(dark)),
            }
        )
    write_text(folder / "table.md", tables.markdown_table(results))
    page = folder / "report.html"
    write_text(page, render(results, images))
    return page


def figures(results: Results) -> Iterator[Plot]:
    """The plots that these results have data for, in reading order."""
    panels = probed_panels(results)
    for temperature in sorted({panel.temperature for panel in panels}):
        own = [panel for panel in panels if panel.temperature == temperature]
        yield Plot(
            f"shift_temperature_{temperature:g}",
            f"What a displaced token costs, at temperature {temperature:g}",
            "Left: win rate against the same model's own un-intervened answers; 0.5 (dotted) means no "
            "change. Right: quality. Solid: tokens shifted by one place; dashed: tokens substituted in "
            "place. Bands are 95 % intervals over questions; n counts questions.",
            lambda theme, own=own: plots.shift_figure(results, own, theme),
        )
    temperatures = [t for t in all_temperatures(results) if plots.plain_rows(results, t)]
    if temperatures:
        yield Plot(
            "quality_by_steps",
            "Quality against denoising steps",
            "Un-intervened. Bands are 95 % intervals; dots, where there are several, are single "
            "training runs; n counts questions.",
            lambda theme: plots.steps_figure(results, temperatures, theme),
        )
    for temperature in temperatures:
        yield Plot(
            f"plainness_temperature_{temperature:g}",
            f"Are the answers plainer? Temperature {temperature:g}",
            "Length, adjectives, diversity and coverage of un-intervened answers beside the held-out "
            "source texts (dashed): a grammatical answer can still be short and plain.",
            lambda theme, t=temperature: plots.plainness_figure(results, t, theme),
        )
    if any(run["points"] for run in results["training"]):
        yield Plot(
            "training",
            "Training",
            "One line per training run. Objectives differ between arms, so compare the training loss "
            "within an arm only.",
            lambda theme: plots.training_figure(results, theme),
        )


def render(results: Results, images: list[dict[str, str]]) -> str:
    """The page as text; ``results`` must be `checked`."""
    shown = replay.scenes(results)
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            r=results,
            images=images,
            metrics=METRICS,
            columns=tables.columns_with_values(results),
            groups=tables.plain_table(results),
            more_columns=tables.columns_with_values(results, tables.MORE_METRICS),
            more_groups=tables.plain_table(results, tables.MORE_METRICS),
            source=tables.source_row(results),
            rivals=tables.win_rows(results, against_self=False, intervened=False),
            probed_rivals=tables.win_rows(results, against_self=False, intervened=True),
            probes=tables.win_rows(results, against_self=True, intervened=True),
            doses=tables.dose_rows(results),
            dose_columns=tables.DOSE,
            **_player(shown),
            number=tables.number,
            canvas_parts=canvas_parts,
            samples=samples_by_prompt(results),
            several_runs=has_several_runs(results),
            config=flatten(results["run"]["config"]),
        )
    )


def write_replay(
    file: Path, replays: Sequence[Mapping[str, Any]], *, title: str, settings: Mapping[str, Any]
) -> None:
    """Write one self-contained page that plays decodings step by step.

    Args:
        file: The HTML file; its folder is made if missing.
        replays: Rows with ``arm`` (the label of the track), ``prompt``, ``kind``, ``rate``, ``text`` and ``frames``, as
            in the section of that name of `slackdlm.report.schema.SHAPE`. Untrusted text.
        title: Heading of the page.
        settings: Shown below it.

    Raises:
        DataError: If there is nothing to play, or a cell is in an unknown state.
    """
    rows = clean(list(replays))
    shown = replay.arranged(rows, {row["arm"]: row["arm"] for row in rows})
    if not shown:
        raise DataError(f"{file}: no frames to replay")
    page = (
        environment()
        .get_template("replay.html.jinja")
        .render(
            title=clean(title),
            version=_version(),
            settings=flatten(clean(dict(settings))),
            **_player(shown),
        )
    )
    write_text(file, page)


def _version() -> str:
    """Of the package; a source tree on the path that is not installed has none."""
    try:
        return version("slackdlm")
    except PackageNotFoundError:
        return "of an unknown version"


def environment() -> Environment:
    """Where the templates are; everything they show is escaped."""
    return Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _player(shown: Sequence[replay.Scene]) -> dict[str, Any]:
    """What both pages need to play scenes: data, styles and the script with its digest."""
    script = (HERE / "replay.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "scenes": shown,
        "cell_text": replay.cell_text,
        "scene_json": Markup(replay.script_json(replay.packed(shown))),
        # Both files are ours; nothing of a model's is ever marked safe except through script_json.
        "style": Markup(style_sheet()),
        "script": Markup(script),
        "script_digest": digest,
    }


def has_several_runs(results: Results) -> bool:
    """Whether any quality row rests on more than one training run."""
    runs = [row.get("per_training_seed", {}) for row in results["quality"]]
    return any(len(values) > 1 for metrics in runs for values in metrics.values())


def samples_by_prompt(results: Results) -> dict[str, list[dict[str, str]]]:
    """The samples of each prompt, in the order of the file, with arms by label."""
    labels = arm_labels(results)
    grouped: dict[str, list[dict[str, str]]] = {}
    for sample in results["samples"]:
        grouped.setdefault(sample["prompt"], []).append({**sample, "label": labels[sample["arm"]]})
    return grouped


def canvas_parts(canvas: str) -> list[tuple[str, bool]]:
    """A canvas cut into pieces; True for special tokens such as ``<slack>``, which are drawn faintly."""
    pieces = re.split(r"(<\|?[a-z_]{1,20}\|?>)", canvas)
    return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested config as dotted names and values, in the order of the file."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += flatten(value, f"{name}.")
        else:
            rows.append((name, tables.MISSING if value is None else str(value)))
    return rows


def style_sheet() -> str:
    """The styles of every page."""
    return (HERE / "report.css").read_text(encoding="utf-8")


def data_uri(svg: bytes) -> str:
    """An image that travels inside the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
