"""Made-up games for the tests of statistics."""

from slackdlm.benchmarks.arena_hard import score_of
from slackdlm.judgments import Game

JUDGE = {"judge": "j"}


def game(question, order, verdict, *, a="m", b="base", **more):
    """A game with this verdict; None: a failed call."""
    score = None if verdict is None else score_of(verdict, order)
    status = "failed" if verdict is None else "ok"
    more = {"judge_identity": JUDGE} | more
    return Game(question, a, b, order, score, verdict, status, None, **more)


def pairs(*verdicts, a="m", b="base"):
    """One question per pair of verdicts, ``a`` shown first and then second."""
    return [
        game(f"q{number}", order, verdict, a=a, b=b)
        for number, pair in enumerate(verdicts)
        for order, verdict in enumerate(pair)
    ]
