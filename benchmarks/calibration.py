"""Do the intervals cover what they say, and do the tests reject as rarely? Measured on real Arena-Hard judgments.

    python benchmarks/calibration.py PATH/v0.1_judgment_bagel-8b_by_R1-Distill-70B.jsonl

The questions with both games scored are the population. A study draws ``n`` of them with replacement and swaps the
two systems' names on each with probability ``swap``: at 0.5 neither system is better, whatever the judge says. Beside
ours runs Arena-Hard's own bootstrap over rows. Writes ``results/calibration.csv`` and the tables of
``docs/calibration.md``.
"""

import argparse
import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats
from scipy.special import expit

from slackdlm.benchmarks.arena_hard import read_judgments, weight_of
from slackdlm.statistics import (
    dose_trend,
    exact_mcnemar,
    mean_interval,
    ratio_interval,
    sign_flip_test,
    standard_error,
)
from slackdlm.statistics.logistic import Rows, fit_logistic

HERE = Path(__file__).parent
SIZES = (32, 80, 175, 500)
SWAPS = {0.5: "null (50 %)", 0.3: "swapped 30 %", 0.0: "as judged"}
FIELDS = ("quantity", "method", "nominal", "effect", "n", "truth", "simulations", "covered", "rejected")  # fmt: skip


@dataclass
class Count:
    """How often a method's interval held the truth and its test said "different"."""

    covered: int = 0
    intervals: int = 0
    rejected: int = 0
    tests: int = 0


@dataclass
class Cell:
    """All methods on one kind of study."""

    quantity: str
    effect: str
    n: int
    truth: float
    counts: dict[tuple[str, float], Count] = field(default_factory=dict)

    def interval(
        self, method: str, low: float | None, high: float | None, nominal: float = 0.95
    ) -> None:
        """Note one interval; one that does not exist covers nothing."""
        count = self.counts.setdefault((method, nominal), Count())
        count.intervals += 1
        if low is not None and high is not None:
            count.covered += low - 1e-12 <= self.truth <= high + 1e-12

    def test(self, method: str, p_value: float | None) -> None:
        """Note one test at 5 %."""
        count = self.counts.setdefault((method, 0.95), Count())
        count.tests += 1
        count.rejected += p_value is not None and p_value <= 0.05

    def rows(self, simulations: int) -> list[dict[str, object]]:
        """One CSV row per method."""
        return [
            {
                "quantity": self.quantity,
                "method": method,
                "nominal": nominal,
                "effect": self.effect,
                "n": self.n,
                "truth": f"{self.truth:.4f}",
                "simulations": simulations,
                "covered": f"{count.covered / count.intervals:.4f}" if count.intervals else "",
                "rejected": f"{count.rejected / count.tests:.4f}" if count.tests else "",
            }
            for (method, nominal), count in self.counts.items()
        ]


def population(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points and row weights of both games of every question that has both: arrays ``[Q, 2]``."""
    questions: dict[str, list[tuple[float, int]]] = {}
    for game in read_judgments(path):
        if game.score is not None:
            questions.setdefault(game.question_id, []).append((game.score, weight_of(game)))
    whole = np.array([pair for pair in questions.values() if len(pair) == 2], dtype=np.float64)
    return whole[:, :, 0], whole[:, :, 1]


def win_rates(points: np.ndarray, weights: np.ndarray, cell: Cell, weighted: Cell, *, swap: float,
              rng: np.random.Generator, resamples: int) -> None:  # fmt: skip
    """One study of a win rate, all methods."""
    drawn = rng.integers(0, len(points), cell.n)
    swapped = rng.random(cell.n) < swap
    games = np.where(swapped[:, None], 1 - points[drawn], points[drawn])
    masses = weights[drawn]
    scores = games.mean(axis=1)
    found = mean_interval(scores, rng=rng, num_resamples=resamples)
    cell.interval("BCa over questions (ours)", found.low, found.high)
    cell.test(
        "sign flips over questions (ours)",
        sign_flip_test(scores - 0.5, rng=rng, num_resamples=resamples),
    )
    # Of rows clustered by question: where every question has two, it is that of the questions' means.
    error = standard_error(scores) or 0.0
    half = stats.t.ppf(0.975, cell.n - 1) * error
    cell.interval("t with clustered error", scores.mean() - half, scores.mean() + half)

    ratio = ratio_interval(
        (games * masses).sum(axis=1), masses.sum(axis=1), rng=rng, num_resamples=resamples
    )
    weighted.interval("BCa over questions (ours)", ratio.low, ratio.high)
    clusters = np.repeat(np.arange(cell.n), 2)
    fitted = fit_logistic(Rows(np.ones((2 * cell.n, 1)), games.ravel(), masses.ravel(), clusters))
    if fitted is None:
        weighted.interval("Wald, clustered (ours, style control)", None, None)
    else:
        at, error = fitted.coefficients[0], fitted.errors[0]
        weighted.interval(
            "Wald, clustered (ours, style control)",
            expit(at - 1.96 * error),
            expit(at + 1.96 * error),
        )
    rows = np.repeat(games.ravel(), masses.ravel().astype(int))
    means = rows[rng.integers(0, rows.size, (100, rows.size))].mean(axis=1)
    for nominal in (0.9, 0.95):
        low, high = np.quantile(means, [(1 - nominal) / 2, (1 + nominal) / 2])
        weighted.interval("bootstrap over rows (Arena-Hard's)", low, high, nominal)
    weighted.test("bootstrap over rows (Arena-Hard's)", 0.0 if not low <= 0.5 <= high else 1.0)


def differences(points: np.ndarray, cell: Cell, *, swaps: tuple[float, float],
                rng: np.random.Generator, resamples: int) -> None:  # fmt: skip
    """One study of two systems against the same baseline, paired by question."""
    drawn = points[rng.integers(0, len(points), cell.n)].mean(axis=1)
    one, two = (np.where(rng.random(cell.n) < swap, 1 - drawn, drawn) for swap in swaps)
    found = mean_interval(one - two, rng=rng, num_resamples=resamples)
    cell.interval("BCa over questions (ours)", found.low, found.high)
    cell.test(
        "sign flips over questions (ours)",
        sign_flip_test(one - two, rng=rng, num_resamples=resamples),
    )
    right = [np.where(side > 0.5, 1.0, 0.0) for side in (one, two)]
    cell.test("exact McNemar on wins (ours)", exact_mcnemar(right[0], right[1]))


def trends(
    points: np.ndarray, cell: Cell, *, fall: float, rng: np.random.Generator, resamples: int
) -> None:
    """One study of a dose-response slope over four doses; names swapped more often as the dose grows."""
    doses = np.array([0.01, 0.02, 0.05, 0.1])
    drawn = points[rng.integers(0, len(points), cell.n)].mean(axis=1)
    swaps = 0.5 - fall * doses[:, None]
    table = np.where(rng.random((4, cell.n)) < swaps, 1 - drawn, drawn)
    found = dose_trend(table, doses, rng=rng, num_resamples=resamples)
    cell.interval("BCa over questions (ours)", found.low, found.high)
    cell.test("sign flips over questions (ours)", found.p_value)


def repeat(study: Callable[[], None], times: int) -> None:
    """Run a study so often."""
    for _ in range(times):
        study()


def measure(path: Path, *, simulations: int, resamples: int, seed: int) -> list[dict[str, object]]:
    """Every cell of the table."""
    points, weights = population(path)
    rng = np.random.default_rng(seed)
    mean = float(points.mean())
    rows: list[dict[str, object]] = []
    told = {"rng": rng, "resamples": resamples}
    for n in SIZES:
        started = time.perf_counter()
        for swap, effect in SWAPS.items():
            both = np.stack([points, 1 - points])
            share = np.array([1 - swap, swap])[:, None, None]
            cell = Cell("win rate", effect, n, (1 - swap) * mean + swap * (1 - mean))
            weighted = Cell(
                "weighted win rate",
                effect,
                n,
                float((both * weights * share).sum() / weights.sum()),
            )
            repeat(
                lambda c=cell, w=weighted, s=swap: win_rates(points, weights, c, w, swap=s, **told),
                simulations,
            )
            rows += cell.rows(simulations) + weighted.rows(simulations)
        for swaps, effect in (((0.3, 0.3), "null (0)"), ((0.3, 0.1), "a real difference")):
            truth = (swaps[0] - swaps[1]) * (1 - 2 * mean)
            cell = Cell("paired difference", effect, n, truth)
            repeat(lambda c=cell, s=swaps: differences(points, c, swaps=s, **told), simulations)
            rows += cell.rows(simulations)
        for fall, effect in ((0.0, "null (0)"), (2.0, "a real fall")):
            cell = Cell("dose-response slope", effect, n, -fall * (1 - 2 * mean))
            repeat(lambda c=cell, f=fall: trends(points, c, fall=f, **told), simulations)
            rows += cell.rows(simulations)
        print(f"n = {n}: {time.perf_counter() - started:.0f} s", flush=True)
    return rows


def tables(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown, one table for coverage and one for tests."""
    lines: list[str] = []
    for title, value, keep in (
        ("Share of intervals that hold the truth", "covered", ""),
        ("Share of tests at 5 % that reject, where nothing differs", "rejected", "null"),
    ):
        kept = [row for row in rows if row[value] != "" and keep in str(row["effect"])]
        keys = list(
            dict.fromkeys((r["quantity"], r["method"], r["nominal"], r["effect"]) for r in kept)
        )
        level = "| nominal " if value == "covered" else ""
        lines += [
            f"### {title}",
            "",
            f"| quantity | method {level}| effect | "
            + " | ".join(f"n = {n}" for n in SIZES)
            + " |",
        ]
        lines += ["|---" * (3 + bool(level)) + "|---:" * len(SIZES) + "|"]
        for key in keys:
            found = {
                r["n"]: float(str(r[value]))
                for r in kept
                if (r["quantity"], r["method"], r["nominal"], r["effect"]) == key
            }
            shown = " | ".join(f"{100 * found[n]:.1f} %" for n in SIZES)
            nominal = f" | {100 * float(str(key[2])):.0f} %" if level else ""
            lines.append(f"| {key[0]} | {key[1]}{nominal} | {key[3]} | {shown} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("judgments", type=Path, help="Arena-Hard judgments, two games a question")
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000, help="of each bootstrap and test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "calibration.csv")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "calibration.md")
    arguments = parser.parse_args()
    rows = measure(
        arguments.judgments,
        simulations=arguments.simulations,
        resamples=arguments.resamples,
        seed=arguments.seed,
    )
    with arguments.output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    mark = "<!-- tables: made by benchmarks/calibration.py, do not edit below -->\n"
    page = arguments.page.read_text(encoding="utf-8") if arguments.page.is_file() else ""
    arguments.page.write_text(page.split(mark)[0] + mark + "\n" + tables(rows), encoding="utf-8")
    print(tables(rows))


if __name__ == "__main__":
    main()
