import io

import numpy as np
import pytest
from matplotlib.image import imread

from slackdlm.report import plots
from slackdlm.report.tables import probed_panels
from slackdlm.study.result import Result

FIGURES = {
    "shift": lambda r: plots.shift_figure(r, probed_panels(r), plots.LIGHT),
    "steps": lambda r: plots.steps_figure(r, [0.0, 1.0], plots.LIGHT),
    "plainness": lambda r: plots.plainness_figure(r, 0.0, plots.LIGHT),
    "probe": lambda r: plots.probe_figure(r, plots.LIGHT),
    "training": lambda r: plots.training_figure(r, plots.LIGHT),
}


def draw(name, results):
    return FIGURES[name](Result.model_validate(results))


def lines(axis):
    return [line for line in axis.lines if len(line.get_xdata()) > 1 and line.get_marker() != "."]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_something(name, results):
    pixels = imread(io.BytesIO(plots.to_png(draw(name, results))))
    assert pixels.shape[1] > 1200
    assert all(axis.get_xlabel() for axis in draw(name, results).axes)
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 50


def test_the_same_results_give_the_same_bytes(results):
    first, second = draw("steps", results), draw("steps", results)
    assert plots.to_png(first) == plots.to_png(second)
    assert plots.to_svg(first) == plots.to_svg(second)


def test_the_shift_plot_draws_shift_solid_and_substitute_dashed(results):
    wins, quality = draw("shift", results).axes
    drawn = [line for line in lines(wins) if line.get_marker() != "None"]
    assert [line.get_linestyle() for line in drawn] == ["-", "--", "-", "--"]
    np.testing.assert_allclose(drawn[0].get_xdata(), [0.01, 0.1])
    np.testing.assert_allclose(drawn[0].get_ydata(), [0.49, 0.4])
    np.testing.assert_allclose(lines(quality)[0].get_xdata(), [0.0, 0.01, 0.1])
    assert len(wins.collections) == 4
    assert "n = 64" in wins.get_title(loc="left")


def test_the_shift_plot_leaves_comparisons_between_arms_out(results):
    results["win_rates"].append(results["win_rates"][-1] | {"against": "base", "value": 0.9})
    wins, _ = draw("shift", results).axes
    assert max(np.max(line.get_ydata()) for line in lines(wins)) < 0.6


def test_a_missing_value_breaks_the_line(results):
    results["win_rates"][1] |= {"value": None, "low": None, "high": None}
    wins, _ = draw("shift", results).axes
    assert np.isnan(lines(wins)[0].get_ydata()[0])
    plots.to_png(wins.figure)


def test_the_source_texts_are_a_line_where_measured(results):
    words, adjectives, _, coverage = draw("plainness", results).axes
    dashed = [len([x for x in a.lines if x.is_dashed()]) for a in (words, adjectives, coverage)]
    assert dashed == [1, 0, 1]


def test_a_measure_that_nothing_was_scored_by_says_so_instead_of_an_empty_scale(results):
    for row in results["quality"]:
        row["metrics"]["words"] |= {"value": None, "low": None, "high": None, "num_scored": 0}
    words, *_, coverage = draw("plainness", results).axes
    assert [text.get_text() for text in words.texts] == ["not scored"]
    assert not words.axison
    assert not coverage.texts
    assert coverage.axison


def test_training_runs_show_only_what_was_measured(results):
    figure = draw("training", results)
    assert [axis.get_ylabel() for axis in figure.axes] == ["training loss (nats, own objective)"]
    assert len(figure.axes[0].lines) == 2


def test_arms_differ_in_colour_and_marker(results):
    axis = draw("steps", results).axes[0]
    drawn = lines(axis)
    assert len({line.get_color() for line in drawn}) == 2
    assert len({line.get_marker() for line in drawn}) == 2


@pytest.mark.parametrize("label", ["$\\frac$", "日本 🚢", "مرحبا", "_hidden", "a<b>&'\""])
def test_hostile_labels_are_drawn_as_text(label, results):
    results["arms"][0]["label"] = label
    figure = draw("steps", results)
    plots.to_svg(figure)
    assert label in [text.get_text() for text in figure.legends[0].get_texts()]


def test_unknown_arms_get_colours_too(results):
    for number in range(9):
        arm = {"name": f"arm{number}", "label": f"arm {number}", "description": ""}
        results["arms"].append(arm)
    plots.to_svg(draw("steps", results))
