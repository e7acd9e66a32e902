"""Logistic regressions on fractional outcomes: with clustered errors, or with an L1 penalty."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from scipy import optimize
from scipy.special import expit

STRENGTHS: Final = tuple(float(c) for c in np.logspace(-4, 4, 10))
"""Inverse strengths ``C`` of the penalty that are tried: scikit-learn's defaults."""
NUM_FOLDS: Final = 5


@dataclass(frozen=True, eq=False)
class Rows:
    """Weighted observations, ``P`` features each."""

    features: Float[np.ndarray, "N P"]
    outcomes: Float[np.ndarray, " N"]
    """In ``[0, 1]``."""
    weights: Float[np.ndarray, " N"]
    """At least 0."""
    question: Int[np.ndarray, " N"]
    """The cluster of each observation."""

    def predicted(self, coefficients: Float[np.ndarray, " P"]) -> Float[np.ndarray, " N"]:
        """The probability of winning that these coefficients give each row."""
        return expit(self.features @ coefficients)

    def residuals(self, coefficients: Float[np.ndarray, " P"]) -> Float[np.ndarray, " N"]:
        """Weighted; times the features they are what each row adds to the score."""
        return self.weights * (self.outcomes - self.predicted(coefficients))

    def scores(self, coefficients: Float[np.ndarray, " P"]) -> Float[np.ndarray, "N P"]:
        """What each row adds to the gradient of the log-likelihood."""
        return self.features * self.residuals(coefficients)[:, None]

    def information(self, coefficients: Float[np.ndarray, " P"]) -> Float[np.ndarray, "P P"]:
        """Minus the Hessian of the log-likelihood."""
        probs = self.predicted(coefficients)
        return (self.features * (self.weights * probs * (1 - probs))[:, None]).T @ self.features


@dataclass(frozen=True, eq=False)
class Fitted:
    """A weighted logistic regression."""

    coefficients: Float[np.ndarray, " P"]
    """Maximum-likelihood estimates."""
    errors: Float[np.ndarray, " P"]
    """Cluster-robust standard errors; NaN with fewer clusters than two, 0 where nothing varies."""


def fit_logistic(rows: Rows) -> Fitted | None:
    """Logistic regression by Newton's method, without an intercept of its own.

    None if there is no finite maximum (complete separation) or the features are collinear.
    """
    at = np.zeros(rows.features.shape[1])
    for _ in range(50):
        gradient, hessian = rows.features.T @ rows.residuals(at), rows.information(at)
        if np.linalg.cond(hessian) > 1e12:
            return None
        step = np.linalg.solve(hessian, gradient)
        # A step of more than 2 in the log-odds overshoots; near the maximum it is never cut.
        at = at + step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        if float(np.abs(step).max()) < 1e-10:
            break
    else:
        return None
    if np.abs(at).max() > 25:
        return None
    # The sandwich: residuals summed within clusters, between two inverse Hessians.
    names, cluster = np.unique(rows.question, return_inverse=True)
    sums = np.zeros((names.size, at.size))
    np.add.at(sums, cluster, rows.scores(at))
    bread = np.linalg.inv(hessian)
    factor = names.size / (names.size - 1) if names.size > 1 else np.nan
    return Fitted(at, np.sqrt(factor * np.diag(bread @ (sums.T @ sums) @ bread)))


def fit_l1(rows: Rows, *, strength: float) -> Float[np.ndarray, " P"]:
    """Coefficients that minimise ``|b|_1 + strength * weighted cross-entropy``.

    The optimum itself, where liblinear stops nearby.
    """
    num = rows.features.shape[1]
    scale = strength * rows.weights.sum()

    def loss(halves: Float[np.ndarray, " H"]) -> tuple[float, Float[np.ndarray, " H"]]:
        # b = up - down with both at least 0: the penalty becomes linear.
        odds = rows.features @ (halves[:num] - halves[num:])
        entropy = rows.weights @ (np.logaddexp(0, odds) - rows.outcomes * odds)
        slope = strength * (rows.features.T @ (rows.weights * (expit(odds) - rows.outcomes)))
        value = float(halves.sum() + strength * entropy) / scale
        return value, (1.0 + np.concatenate([slope, -slope])) / scale

    optimum = optimize.minimize(
        loss,
        np.zeros(2 * num),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, None)] * (2 * num),
        options={"ftol": 1e-15, "gtol": 1e-10, "maxiter": 1000},
    )
    return np.asarray(optimum.x[:num] - optimum.x[num:], dtype=np.float64)


def cross_validated_strength(rows: Rows) -> float:
    """Of `STRENGTHS`, the one whose fit predicts left-out rows best, each fold a fifth of the rows."""
    fold = np.arange(rows.outcomes.size)[::-1] % NUM_FOLDS
    losses = np.zeros(len(STRENGTHS))
    for left_out in range(NUM_FOLDS):
        train, test = (_subset(rows, chosen) for chosen in (fold != left_out, fold == left_out))
        for i, strength in enumerate(STRENGTHS):
            odds = test.features @ fit_l1(train, strength=strength)
            entropy = np.logaddexp(0, odds) - test.outcomes * odds
            losses[i] += float(np.mean(test.weights * entropy)) / NUM_FOLDS
    return STRENGTHS[int(losses.argmin())]


def _subset(rows: Rows, chosen: np.ndarray) -> Rows:
    parts = (rows.features, rows.outcomes, rows.weights, rows.question)
    return Rows(*(part[chosen] for part in parts))
