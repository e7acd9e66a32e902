"""One self-contained HTML page: styles, script, plots and data inside it, nothing fetched from anywhere."""

import base64
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure
from pydantic import ValidationError

from slackdlm.atomic import write_bytes, write_text
from slackdlm.config import flatten
from slackdlm.errors import DataError
from slackdlm.report import plots, replay, tables, text
from slackdlm.study.result import Replay, Result, Sample, clean, explained, installed_version

HERE = Path(__file__).parent


class Plot(NamedTuple):
    """One figure, to be drawn in any theme."""

    name: str
    title: str
    caption: str
    draw: Callable[[plots.Theme], Figure]


class Image(NamedTuple):
    """One figure as data URIs."""

    title: str
    caption: str
    light: str
    dark: str


def write_report(result: Result, folder: Path) -> Path:
    """Write ``report.html``, ``table.md`` and ``plots/*.png`` into a folder; returns the page.

    The same result gives the same bytes; files of the same names are replaced.
    """
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    images: list[Image] = []
    for plot in figures(result):
        light, dark = plot.draw(plots.LIGHT), plot.draw(plots.DARK)
        write_bytes(folder / "plots" / f"{plot.name}.png", plots.to_png(light))
        uris = [data_uri(plots.to_svg(figure)) for figure in (light, dark)]
        images.append(Image(plot.title, plot.caption, *uris))
    write_text(folder / "table.md", tables.markdown(result))
    page = folder / "report.html"
    write_text(page, render(result, images))
    return page


def figures(result: Result) -> Iterator[Plot]:
    """The plots that this result has data for, in reading order."""
    panels = tables.probed_panels(result)
    if result.quality:
        yield from _quality_plots(result, panels)
    elif panels:
        yield Plot(
            "probe",
            "What a displaced token costs",
            "Win rate of each arm against its own baseline answers; 0.5 (dotted) means no change. "
            "Bands are 95 % intervals over questions.",
            lambda theme: plots.probe_figure(result, theme),
        )
    if any(run.points for run in result.training):
        yield Plot(
            "training",
            "Training",
            "One line per training run. Objectives differ between arms, so compare the training loss "
            "within an arm only.",
            lambda theme: plots.training_figure(result, theme),
        )


def _quality_plots(result: Result, panels: Sequence[tables.Panel]) -> Iterator[Plot]:
    for temperature in sorted({panel.temperature for panel in panels}):
        probed = [panel for panel in panels if panel.temperature == temperature]
        yield Plot(
            f"shift_temperature_{temperature:g}",
            f"What a displaced token costs, at temperature {temperature:g}",
            "Left: win rate against the same model's own baseline answers; 0.5 (dotted) means no "
            "change. Right: quality. Solid: tokens shifted by one place; dashed: tokens substituted in "
            "place. Bands are 95 % intervals over questions; n counts questions.",
            lambda theme, probed=probed: plots.shift_figure(result, probed, theme),
        )
    temperatures = [group.temperature for group in tables.baseline_table(result)]
    if temperatures:
        yield Plot(
            "quality_by_steps",
            "Quality against denoising steps",
            "Baseline answers. Bands are 95 % intervals; dots, where there are several, are single "
            "training runs; n counts questions.",
            lambda theme: plots.steps_figure(result, temperatures, theme),
        )
    for temperature in temperatures:
        yield Plot(
            f"plainness_temperature_{temperature:g}",
            f"Are the answers plainer? Temperature {temperature:g}",
            "Length, adjectives, diversity and coverage of baseline answers beside the held-out "
            "source texts (dashed): a grammatical answer can still be short and plain.",
            lambda theme, t=temperature: plots.plainness_figure(result, t, theme),
        )


def render(result: Result, images: Sequence[Image]) -> str:
    """The page as text."""
    labels = tables.arm_labels(result)
    samples: dict[str, list[Sample]] = {}
    for sample in result.samples:
        samples.setdefault(sample.prompt, []).append(sample)
    runs = [values for row in result.quality for values in row.per_training_seed.values()]
    return rendered(
        "report.html.jinja",
        r=result,
        labels=labels,
        images=images,
        t=tables,
        text=text,
        wins=tables.win_tables(result),
        samples=samples,
        canvas_parts=canvas_parts,
        has_several_runs=any(len(values) > 1 for values in runs),
        config=settings_rows(result.run.config),
        **_player(replay.scenes(result.replays, labels)),
    )


def write_replay(
    file: Path, replays: Sequence[Mapping[str, Any]], *, title: str, settings: Mapping[str, Any]
) -> None:
    """Write one self-contained page that plays decodings step by step.

    Args:
        file: The HTML file; its folder is made if missing.
        replays: As `slackdlm.study.result.Replay`; ``arm`` is the label of the track. Untrusted text.
        title: Heading of the page.
        settings: Shown below it.

    Raises:
        DataError: If there is nothing to play, or a replay lacks a key or has a wrong value.
    """
    try:
        rows = [Replay.model_validate(row) for row in replays]
    except ValidationError as error:
        raise DataError(f"{file}: replay: {explained(error)}") from error
    scenes = replay.scenes(rows, {row.arm: row.arm for row in rows})
    if not scenes:
        raise DataError(f"{file}: no frames to replay")
    page = rendered(
        "replay.html.jinja",
        title=clean(title),
        version=installed_version(),
        settings=settings_rows(settings),
        **_player(scenes),
    )
    write_text(file, page)


def rendered(template: str, **values: Any) -> str:
    """A page; all that it shows is escaped but what is `Markup`."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def _player(scenes: Sequence[replay.Scene]) -> dict[str, Any]:
    """What both pages need to play scenes: data, styles and the script with its digest."""
    script = (HERE / "replay.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "scenes": scenes,
        "cell_text": replay.cell_text,
        "scene_json": Markup(replay.script_json(replay.packed(scenes))),
        # Both files are ours; nothing of a model's is ever marked safe except through script_json.
        "style": Markup(style_sheet()),
        "script": Markup(script),
        "script_digest": digest,
    }


def canvas_parts(canvas: str) -> list[tuple[str, bool]]:
    """A canvas cut into pieces; True for special tokens such as ``<slack>``, which are drawn faintly."""
    pieces = re.split(r"(<\|?[a-z_]{1,20}\|?>)", canvas)
    return [(piece, index % 2 == 1) for index, piece in enumerate(pieces) if piece]


def settings_rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Nested settings as dotted names and values."""
    flat = flatten(clean(dict(settings)))
    return [(name, text.MISSING if value is None else str(value)) for name, value in flat.items()]


def style_sheet() -> str:
    """The styles of every page."""
    return (HERE / "report.css").read_text(encoding="utf-8")


def data_uri(svg: bytes) -> str:
    """An image that travels inside the page."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()
