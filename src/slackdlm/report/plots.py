"""The plots of a report, each a plain function from a result to a figure, in a light and a dark theme.

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

from slackdlm.report.tables import METRICS, Panel, arm_labels, baseline_rows, scored_range
from slackdlm.study.result import Curve, QualityRow, Result, Setting, WinRow
from slackdlm.study.result import Figure as Estimate


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


def shift_figure(result: Result, panels: Sequence[Panel], theme: Theme) -> Figure:
    """Win rate against the arm's own baseline answers, and quality, against the rate; one row per panel."""
    labels = arm_labels(result)
    figure, axes = _grid(len(panels), 2, theme, width=9.2, height=3.1, share="col")
    for (wins, quality), panel in zip(axes, panels, strict=True):
        setting = f"{panel.steps} steps, temperature {panel.temperature:g}"
        probes = [row for row in _probes(result) if _panel(row) == panel]
        _shift_lines(wins, labels, [(row, row) for row in probes], theme)
        wins.axhline(0.5, color=theme.faint, linewidth=1, linestyle=(0, (1, 2)))
        wins.set_ylabel("win rate against own\nbaseline answers")
        _title(wins, f"{setting} · {scored_range(probes)}", theme)
        cells = [
            (row, row.metrics["quality"])
            for row in result.quality
            if _panel(row) == panel and "quality" in row.metrics
        ]
        _shift_lines(quality, labels, cells, theme)
        quality.set_ylabel("quality (0 to 1)")
        quality.set_ylim(0, None)
        scored = scored_range(estimate for _, estimate in cells)
        _title(quality, f"{setting} · {scored}", theme)
        for axis in (wins, quality):
            _rate_axis(axis, {row.rate for row, _ in cells} | {row.rate for row in probes})
    kinds = [("shifted by one place", "-"), ("substituted in place", "--")]
    rows = [*result.quality, *result.win_rates]
    _legend(figure, labels, [row.arm for row in rows if row.kind != "none"], theme, extra=kinds)
    return figure


def probe_figure(result: Result, theme: Theme) -> Figure:
    """Win rate of each arm against its own baseline answers, against the rate; one panel a kind."""
    labels, probes = arm_labels(result), _probes(result)
    kinds = list(dict.fromkeys(row.kind for row in probes))
    width = 4.2 * max(len(kinds), 2)
    figure, axes = _grid(1, len(kinds), theme, width=width, height=3.4, share=True)
    for axis, kind in zip(axes[0], kinds, strict=True):
        rows = [row for row in probes if row.kind == kind]
        for arm, look in _looks(labels, theme).items():
            _line(axis, look, [(row.rate, row) for row in rows if row.arm == arm], theme)
        axis.axhline(0.5, color=theme.faint, linewidth=1, linestyle=(0, (1, 2)))
        _rate_axis(axis, {row.rate for row in rows})
        _title(axis, f"{kind} · {scored_range(rows)}", theme)
    axes[0][0].set_ylabel("win rate against own\nbaseline answers")
    _legend(figure, labels, labels, theme)
    return figure


def steps_figure(result: Result, temperatures: Sequence[float], theme: Theme) -> Figure:
    """Baseline quality against denoising steps; dots are single training runs."""
    labels = arm_labels(result)
    figure, axes = _grid(1, len(temperatures), theme, width=9.2, height=3.6)
    for axis, temperature in zip(axes[0], temperatures, strict=True):
        rows = baseline_rows(result, temperature)
        _metric_lines(axis, labels, rows, "quality", theme)
        scored = scored_range(_metric(rows, "quality"))
        _title(axis, f"temperature {temperature:g} · {scored}", theme)
        axis.set_ylabel("quality (0 to 1)")
        axis.set_ylim(0, None)
    _legend(figure, labels, [row.arm for row in result.quality if row.kind == "none"], theme)
    return figure


def plainness_figure(result: Result, temperature: float, theme: Theme) -> Figure:
    """Length, adjectives, diversity and coverage against steps, beside the source texts' own."""
    labels = arm_labels(result)
    figure, axes = _grid(2, 2, theme, width=9.2, height=3.0)
    rows = baseline_rows(result, temperature)
    for axis, name in zip(axes.flat, PLAIN_METRICS, strict=True):
        title, unit = METRICS[name]
        estimates = _metric(rows, name)
        if all(estimate.value is None for estimate in estimates):
            axis.set_axis_off()
            axis.text(0.5, 0.5, "not scored", ha="center", color=theme.faint)
            _title(axis, title, theme)
            continue
        _metric_lines(axis, labels, rows, name, theme)
        source = result.source.metrics.get(name)
        if source is not None and source.value is not None:
            axis.axhline(source.value, color=theme.ink, linewidth=1.2, linestyle=(0, (5, 3)))
        axis.set_ylabel(unit.replace(" that", "\nthat").replace(" pairs", " pairs\n", 1))
        _title(axis, f"{title} · {scored_range(estimates)}", theme)
    sources = [("source texts", (0, (5, 3)))]
    _legend(figure, labels, [row.arm for row in rows], theme, extra=sources)
    return figure


def training_figure(result: Result, theme: Theme) -> Figure:
    """Loss and held-out losses against the training step, one line per training run."""
    curves = {
        name: [(run.arm, curve) for run in result.training if (curve := _curve(run, name))]
        for name in LOSSES
    }
    names = [name for name in LOSSES if curves[name]]
    figure, axes = _grid(1, max(1, len(names)), theme, width=9.2, height=3.4)
    labels = arm_labels(result)
    looks = _looks(labels, theme)
    for axis, name in zip(axes[0], names, strict=False):
        for arm, curve in curves[name]:
            steps, values = zip(*curve, strict=True)
            axis.plot(steps, values, color=looks[arm][0], linewidth=1.3, alpha=0.85)
        axis.set_ylabel(LOSSES[name])
        axis.set_xlabel("training step")
    _legend(figure, labels, [run.arm for run in result.training], theme, markers=False)
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


def _probes(result: Result) -> list[WinRow]:
    return [row for row in result.win_rates if row.against == "self" and row.kind != "none"]


def _panel(row: Setting) -> Panel:
    return Panel(row.temperature, row.steps)


def _metric(rows: Iterable[QualityRow], name: str) -> list[Estimate]:
    return [row.metrics[name] for row in rows if name in row.metrics]


def _curve(run: Curve, name: str) -> list[tuple[int, float]]:
    points = [(point.step, getattr(point, name)) for point in run.points]
    return [(step, loss) for step, loss in points if loss is not None]


def _shift_lines(
    axis: Axes,
    labels: Mapping[str, str],
    cells: Sequence[tuple[Setting, Estimate | WinRow]],
    theme: Theme,
) -> None:
    for arm, look in _looks(labels, theme).items():
        for kind, style in (("shift", "-"), ("substitute", "--")):
            points = [
                (row.rate, estimate)
                for row, estimate in cells
                if row.arm == arm and row.kind in (kind, "none")
            ]
            if any(rate > 0 for rate, _ in points):
                _line(axis, look, points, theme, linestyle=style)


def _metric_lines(
    axis: Axes, labels: Mapping[str, str], rows: Sequence[QualityRow], name: str, theme: Theme
) -> None:
    for arm, look in _looks(labels, theme).items():
        measured = [row for row in rows if row.arm == arm and name in row.metrics]
        _line(axis, look, [(row.steps, row.metrics[name]) for row in measured], theme)
        for row in measured:
            runs = [v for v in row.per_training_seed.get(name, []) if v is not None]
            if len(runs) > 1:
                steps = [row.steps] * len(runs)
                axis.plot(steps, runs, ".", color=look[0], markersize=4, alpha=0.55)
    steps = sorted({row.steps for row in rows})
    if steps:
        axis.set_xscale("log", base=2)
        axis.set_xticks(steps, [str(step) for step in steps])
        axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlabel("denoising steps (model forwards; log scale)")


def _line(
    axis: Axes,
    look: tuple[str, str],
    points: Sequence[tuple[float, Estimate | WinRow]],
    theme: Theme,
    *,
    linestyle: str = "-",
) -> None:
    points = sorted(points, key=lambda point: point[0])
    x, value, low, high = (
        np.array(
            [(x, estimate.value, estimate.low, estimate.high) for x, estimate in points],
            dtype=np.float64,
        )
        .reshape(-1, 4)
        .T
    )
    colour, marker = look
    axis.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0)
    axis.plot(
        x,
        value,
        color=colour,
        linestyle=linestyle,
        linewidth=1.9,
        marker=marker,
        markersize=4.5,
        markerfacecolor=colour if linestyle == "-" else theme.paper,
    )


def _rate_axis(axis: Axes, rates: Collection[float]) -> None:
    axis.set_xscale("function", functions=(_root, np.square))
    axis.set_xticks(sorted(rates))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{100 * rate:.3g}"))
    axis.set_xlim(left=0, right=(max(rates, default=0) or 0.01) * 1.06)
    axis.set_xlabel("share of tokens intervened on (%, square-root scale)")


def _root(rates: Any) -> Any:
    return np.sqrt(np.maximum(rates, 0))
