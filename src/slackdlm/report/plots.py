"""The plots of a report, each a plain function from results to a figure, in a light and a dark theme.

Colours follow Okabe and Ito's palette for colour-blind readers; markers repeat what colours say. Lines break
where a value is missing.
"""

import io
import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from slackdlm.report.results import METRICS, Panel, Results, arm_labels, plain_rows, scored_range


class Theme(NamedTuple):
    """Colours of one theme."""

    ink: str
    faint: str
    grid: str
    paper: str
    arms: tuple[str, ...]
    """First the base model's, then one per further arm."""


LIGHT: Final = Theme(
    ink="#1c1f23",
    faint="#5f6771",
    grid="#e3e6ea",
    paper="#ffffff",
    arms=("#7a828c", "#0072b2", "#d98a00", "#d1495b", "#009e73", "#8e5ea2"),
)
DARK: Final = Theme(
    ink="#e8eaed",
    faint="#a3abb5",
    grid="#30363d",
    paper="#181b20",
    arms=("#9aa2ac", "#56b4e9", "#f0b429", "#ff7f8e", "#3fd0a4", "#c9a0dc"),
)
MARKERS: Final = ("D", "o", "s", "^", "v", "P")
PLAIN_METRICS: Final = ("words", "adjectives", "distinct_bigrams", "coverage")
LOSSES: Final = {
    "loss": "training loss (nats, own objective)",
    "eval_ce": "held-out cross-entropy (nats)",
    "eval_objective": "held-out own objective (nats)",
}


def shift_figure(results: Results, panels: Sequence[Panel], theme: Theme) -> Figure:
    """Win rate against the un-intervened self, and quality, against the rate; one row per panel."""
    labels = arm_labels(results)
    figure, axes = _grid(len(panels), 2, theme, width=9.2, height=3.1, share="col")
    for (wins, quality), panel in zip(axes, panels, strict=True):
        where = f"{panel.steps} steps, temperature {panel.temperature:g}"
        probes = [
            row
            for row in results["win_rates"]
            if row["against"] == "self" and _at(row, panel) and row["kind"] != "none"
        ]
        _shift_lines(wins, labels, [(row, row) for row in probes], theme)
        wins.axhline(0.5, color=theme.faint, linewidth=1, linestyle=(0, (1, 2)))
        wins.set_ylabel("win rate against own\nun-intervened answers")
        _title(wins, f"{where} · {scored_range(probes)}", theme)
        cells = [
            (row, row["metrics"]["quality"])
            for row in results["quality"]
            if _at(row, panel) and "quality" in row["metrics"]
        ]
        _shift_lines(quality, labels, cells, theme)
        quality.set_ylabel("quality (0 to 1)")
        quality.set_ylim(0, None)
        scored = scored_range([estimate for _, estimate in cells])
        _title(quality, f"{where} · {scored}", theme)
        rates = sorted({row["rate"] for row, _ in cells} | {row["rate"] for row in probes})
        for axis in (wins, quality):
            _rate_axis(axis, rates)
    kinds = [("shifted by one place", "-"), ("substituted in place", "--")]
    drawn = [
        row["arm"] for row in [*results["quality"], *results["win_rates"]] if row["kind"] != "none"
    ]
    _legend(figure, labels, drawn, theme, extra=kinds)
    return figure


def probe_figure(result: Mapping[str, Any], theme: Theme) -> Figure:
    """Win rate of each arm against its own undisturbed answers, against the rate; one panel a kind.

    Args:
        result: ``rows`` as :func:`slackdlm.report.probe.write_probe` takes them.
        theme: Light or dark.
    """
    kinds = list(dict.fromkeys(row["kind"] for row in result["rows"]))
    labels = {row["arm"]: row["arm"] for row in result["rows"]}
    looks = _looks(labels, theme)
    figure, axes = _grid(
        1, len(kinds), theme, width=4.2 * max(len(kinds), 2), height=3.4, share=True
    )
    for axis, kind in zip(axes[0], kinds, strict=True):
        rows = [row for row in result["rows"] if row["kind"] == kind]
        for arm, look in looks.items():
            own = [(row["rate"], row["win_rate"]) for row in rows if row["arm"] == arm]
            _line(axis, look, own, theme)
        axis.axhline(0.5, color=theme.faint, linewidth=1, linestyle=(0, (1, 2)))
        _rate_axis(axis, sorted({row["rate"] for row in rows}))
        _title(axis, f"{kind} · {scored_range([row['win_rate'] for row in rows])}", theme)
    axes[0][0].set_ylabel("win rate against own\nundisturbed answers")
    _legend(figure, labels, labels, theme)
    return figure


def steps_figure(results: Results, temperatures: Sequence[float], theme: Theme) -> Figure:
    """Un-intervened quality against denoising steps; dots are single training runs."""
    labels = arm_labels(results)
    figure, axes = _grid(1, len(temperatures), theme, width=9.2, height=3.6)
    for axis, temperature in zip(axes[0], temperatures, strict=True):
        rows = plain_rows(results, temperature)
        _metric_lines(axis, labels, rows, "quality", theme)
        scored = scored_range(_metric(rows, "quality"))
        _title(axis, f"temperature {temperature:g} · {scored}", theme)
        axis.set_ylabel("quality (0 to 1)")
        axis.set_ylim(0, None)
    drawn = [row["arm"] for row in results["quality"] if row["kind"] == "none"]
    _legend(figure, labels, drawn, theme)
    return figure


def plainness_figure(results: Results, temperature: float, theme: Theme) -> Figure:
    """Length, adjectives, diversity and coverage against steps, beside the source texts' own."""
    labels = arm_labels(results)
    figure, axes = _grid(2, 2, theme, width=9.2, height=3.0)
    rows = plain_rows(results, temperature)
    source = results["source"]["metrics"]
    for axis, name in zip(axes.flat, PLAIN_METRICS, strict=True):
        if not any(estimate["value"] is not None for estimate in _metric(rows, name)):
            axis.set_axis_off()
            axis.text(0.5, 0.5, "not scored", ha="center", color=theme.faint)
            _title(axis, METRICS[name][0], theme)
            continue
        _metric_lines(axis, labels, rows, name, theme)
        reference = source.get(name, {}).get("value")
        if reference is not None:
            axis.axhline(reference, color=theme.ink, linewidth=1.2, linestyle=(0, (5, 3)))
        title, unit = METRICS[name]
        axis.set_ylabel(unit.replace(" that", "\nthat").replace(" pairs", " pairs\n", 1))
        _title(axis, f"{title} · {scored_range(_metric(rows, name))}", theme)
    drawn = [row["arm"] for row in rows]
    _legend(figure, labels, drawn, theme, extra=[("source texts", (0, (5, 3)))])
    return figure


def training_figure(results: Results, theme: Theme) -> Figure:
    """Loss and held-out losses against the training step, one line per training run."""
    names = [name for name in LOSSES if any(_curve(run, name) for run in results["training"])]
    figure, axes = _grid(1, max(1, len(names)), theme, width=9.2, height=3.4)
    labels = arm_labels(results)
    looks = _looks(labels, theme)
    for axis, name in zip(axes[0], names, strict=False):
        for run in results["training"]:
            curve = _curve(run, name)
            if curve:
                steps, values = zip(*curve, strict=True)
                colour, _ = looks[run["arm"]]
                axis.plot(steps, values, color=colour, linewidth=1.3, alpha=0.85)
        axis.set_ylabel(LOSSES[name])
        axis.set_xlabel("training step")
    drawn = [run["arm"] for run in results["training"]]
    _legend(figure, labels, drawn, theme, markers=False)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    return _render(figure, "png", dpi=180)


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG with outlined text, the same bytes for the same figure."""
    with mpl.rc_context({"svg.hashsalt": "slackdlm", "svg.fonttype": "path"}):
        return _render(figure, "svg", metadata={"Date": None})


def _render(figure: Figure, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A label may hold a character that the font lacks; it is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format=kind, facecolor=figure.get_facecolor(), **settings)
    return buffer.getvalue()


@contextmanager
def _style(theme: Theme) -> Any:
    settings: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.labelsize": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.faint,
        "axes.labelcolor": theme.ink,
        "axes.facecolor": theme.paper,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "figure.facecolor": theme.paper,
        "legend.frameon": False,
        "legend.labelcolor": theme.ink,
        "text.parse_math": False,
        "text.color": theme.ink,
    }
    with mpl.rc_context(settings):
        yield


def _grid(
    rows: int, columns: int, theme: Theme, *, width: float, height: float, share: Any = False
) -> tuple[Figure, np.ndarray]:
    with _style(theme):
        figure = Figure(figsize=(width, height * rows + 0.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(rows, columns, squeeze=False, sharey=share)
    return figure, axes


def _title(axis: Axes, text: str, theme: Theme) -> None:
    axis.set_title(text, loc="left", fontsize=10, color=theme.faint)


def _legend(
    figure: Figure,
    labels: Mapping[str, str],
    drawn: Collection[str],
    theme: Theme,
    *,
    markers: bool = True,
    extra: Iterable[tuple[str, Any]] = (),
) -> None:
    handles = [
        Line2D([], [], color=colour, marker=marker if markers else "", label=labels[arm])
        for arm, (colour, marker) in _looks(labels, theme).items()
        if arm in drawn
    ]
    handles += [Line2D([], [], color=theme.ink, linestyle=s, label=name) for name, s in extra]
    with _style(theme):
        figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=2.6)


def _looks(labels: Mapping[str, str], theme: Theme) -> dict[str, tuple[str, str]]:
    """Colour and marker of each arm, in the order of the labels; the base keeps its own wherever it stands."""
    colours, markers = cycle(theme.arms[1:]), cycle(MARKERS[1:])
    return {
        arm: (theme.arms[0], MARKERS[0]) if arm == "base" else (next(colours), next(markers))
        for arm in labels
    }


def _at(row: Mapping[str, Any], panel: Panel) -> bool:
    return row["temperature"] == panel.temperature and row["steps"] == panel.steps


def _metric(rows: Iterable[Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row["metrics"][name] for row in rows if name in row["metrics"]]


def _curve(run: Mapping[str, Any], name: str) -> list[tuple[float, float]]:
    return [(p["step"], p[name]) for p in run["points"] if p.get(name) is not None]


def _shift_lines(
    axis: Axes, labels: Mapping[str, str], cells: Sequence[tuple[Any, Any]], theme: Theme
) -> None:
    for arm, look in _looks(labels, theme).items():
        for kind, style in (("shift", "-"), ("substitute", "--")):
            line = [
                (row["rate"], estimate)
                for row, estimate in cells
                if row["arm"] == arm and row["kind"] in (kind, "none")
            ]
            if len({rate for rate, _ in line}) > 1 or any(rate > 0 for rate, _ in line):
                _line(axis, look, line, theme, linestyle=style)


def _metric_lines(
    axis: Axes, labels: Mapping[str, str], rows: Sequence[Any], name: str, theme: Theme
) -> None:
    for arm, look in _looks(labels, theme).items():
        own = [row for row in rows if row["arm"] == arm and name in row["metrics"]]
        _line(axis, look, [(r["steps"], r["metrics"][name]) for r in own], theme)
        for row in own:
            runs = [v for v in row.get("per_training_seed", {}).get(name, []) if v is not None]
            if len(runs) > 1:
                places = [row["steps"]] * len(runs)
                axis.plot(places, runs, ".", color=look[0], markersize=4, alpha=0.55)
    steps = sorted({row["steps"] for row in rows})
    if steps:
        axis.set_xscale("log", base=2)
        axis.set_xticks(steps, [str(step) for step in steps])
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("denoising steps (model forwards; log scale)")


def _line(
    axis: Axes,
    look: tuple[str, str],
    points: Sequence[tuple[float, Mapping[str, Any]]],
    theme: Theme,
    *,
    linestyle: str = "-",
) -> None:
    points = sorted(points, key=lambda point: point[0])
    places = np.array([place for place, _ in points], dtype=np.float64)
    value, low, high = (
        np.array([point[key] for _, point in points], dtype=np.float64)
        for key in ("value", "low", "high")
    )
    colour, marker = look
    axis.fill_between(places, low, high, color=colour, alpha=0.16, linewidth=0)
    axis.plot(
        places,
        value,
        color=colour,
        linestyle=linestyle,
        linewidth=1.9,
        marker=marker,
        markersize=4.5,
        markerfacecolor=colour if linestyle == "-" else theme.paper,
    )


def _rate_axis(axis: Axes, rates: Sequence[float]) -> None:
    axis.set_xscale("function", functions=(_root, np.square))
    axis.set_xticks(list(rates))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:.3g}"))
    axis.set_xlim(left=0, right=(max(rates) if rates and max(rates) > 0 else 0.01) * 1.06)
    axis.set_xlabel("share of tokens intervened on (%, square-root scale)")


def _root(rates: Any) -> Any:
    return np.sqrt(np.maximum(rates, 0))
