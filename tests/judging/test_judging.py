"""Whatever an endpoint does, a run ends with the judgments of a run without faults, or says what is missing."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judge_server import FAULTS, JudgeServer, serving, verdict_for

from slackdlm.errors import ConfigError, DataError
from slackdlm.judging.budget import Budget
from slackdlm.judging.endpoint import EndpointConfig, EndpointJudge
from slackdlm.judging.judges import Call, CallFailed, ExactJudge, Reply
from slackdlm.judging.plan import dry_run, judge_identity, plan_judgments
from slackdlm.judging.protocols import judging_protocol
from slackdlm.judging.run import Judged, judge_answers
from slackdlm.judgments import Grade
from slackdlm.records import Answer, Question

PAIRS = judging_protocol("pairs")
KEY = "sk-secret-0123456789"
QUESTIONS = [
    Question(f"q{n}", None, ({"role": "user", "content": f"What is {n}?"},)) for n in range(3)
]


def answers(system: str, *, count: int = 3) -> list[Answer]:
    return [Answer(f"q{n}", system, (f"{system} says {n}",)) for n in range(count)]


def endpoint(server: JudgeServer, **settings: Any) -> EndpointJudge:
    config = EndpointConfig(
        model="served", base_url=server.url, key_variable="TEST_KEY", timeout=0.3, concurrency=6
    )
    judge = EndpointJudge(replace(config, **settings), {"TEST_KEY": KEY})
    server.clients.append(judge)
    return judge


def run(judge: Any, journal: Path, **options: Any) -> Judged:
    return judge_answers(
        PAIRS,
        judge,
        QUESTIONS,
        answers("ours"),
        baseline=answers("base"),
        journal=journal,
        **options,
    )


@pytest.fixture(scope="module")
def fault_free(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    with serving() as server:
        return run(endpoint(server), tmp_path_factory.mktemp("j") / "j.journal").judgments


def test_both_orders_of_every_pair_are_judged(fault_free: list[Any]) -> None:
    assert [(g.question_id, g.a, g.b, g.order) for g in fault_free] == [
        (f"q{n}", "ours", "base", order) for n in range(3) for order in (0, 1)
    ]
    for game in fault_free:
        assert game.status == "ok"
        assert game.verdict == verdict_for(list(game.prompt))
        first = 1.0 if "A>" in game.verdict else 0.0 if "B>" in game.verdict else 0.5
        assert game.score == (first if game.order == 0 else 1 - first)
        shown = game.prompt[-1]["content"]
        assert (shown.index("ours says") < shown.index("base says")) == (game.order == 0)
    assert len({game.verdict for game in fault_free}) > 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_no_judgment(fault: str, fault_free: list[Any], tmp_path: Path) -> None:
    with serving(fault) as server:
        judged = run(endpoint(server), tmp_path / "j.journal")
        assert len(server.requests) == 12, "every prompt met the fault once"
    assert judged.judgments == fault_free
    assert judged.stopped is None


def test_all_faults_one_after_another_change_no_judgment(
    fault_free: list[Any], tmp_path: Path
) -> None:
    faults = ["429", "unparsable", "close", "malformed", "500", "no_choices"]
    with serving(*faults) as server:
        judged = run(endpoint(server, max_retries=3), tmp_path / "j.journal")
    assert judged.judgments == fault_free
    assert judged.calls == 6 * 4, "replies that could not be used are calls of their own"


def test_what_failed_is_recorded_as_failed_and_asked_again_by_the_next_run(
    fault_free: list[Any], tmp_path: Path
) -> None:
    journal = tmp_path / "j.journal"
    with serving("400", forever=True) as server:
        judged = run(endpoint(server, max_retries=0), journal)
    assert judged.tally.num_failed == 6
    assert {game.score for game in judged.judgments} == {None}
    with serving("unparsable", forever=True) as server:
        judged = run(endpoint(server), journal)
        assert len(server.requests) == 6 * 4
    assert judged.tally.num_unparsable == 6
    assert all("[[maybe]]" in str(game.reply) for game in judged.judgments)
    assert judged.judgments[0].extra == {"error": "the reply holds no verdict"}
    with serving() as server:
        assert run(endpoint(server), journal).judgments == fault_free
        again = run(endpoint(server), journal)
        assert len(server.requests) == 6
    assert again.judgments == fault_free
    assert again.new_calls == 0
    assert again.calls == 6 + 24 + 6


def test_a_long_retry_after_is_waited_for_and_not_guessed(tmp_path: Path) -> None:
    with serving("429", retry_after="1.2") as server:
        started = time.monotonic()
        run(endpoint(server), tmp_path / "j.journal")
        # The client's own guess would be half a second.
        assert time.monotonic() - started > 1.2


@pytest.mark.parametrize("fault", ["401", "404"])
def test_a_refused_key_or_model_ends_the_run_at_once(fault: str, tmp_path: Path) -> None:
    with serving(fault, forever=True) as server:
        with pytest.raises(ConfigError, match="refuses 'served'") as caught:
            run(endpoint(server, concurrency=1), tmp_path / "j.journal")
        assert len(server.requests) == 1
    assert KEY not in str(caught.value)
    assert "[key]" in str(caught.value)


def test_a_dead_endpoint_is_given_up(tmp_path: Path) -> None:
    questions = [replace(QUESTIONS[0], id=f"q{n}") for n in range(20)]
    many = [Answer(f"q{n}", name, (f"{name} {n}",)) for n in range(20) for name in ("ours",)]
    base = [replace(answer, system="base", turns=("x",)) for answer in many]
    with serving("400", forever=True) as server:
        judge = endpoint(server, max_retries=0, concurrency=1)
        judged = judge_answers(
            PAIRS, judge, questions, many, baseline=base, journal=tmp_path / "j.journal"
        )
        assert len(server.requests) == 20
    assert "20 calls in a row failed" in str(judged.stopped)
    assert judged.tally.num_failed == judged.tally.num_total == 40


def test_the_key_is_sent_and_written_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    with serving("500", "400", forever=True) as server:
        judged = run(endpoint(server, max_retries=1), tmp_path / "j.journal")
        assert {h["authorization"] for h in server.headers} == {f"Bearer {KEY}"}
    assert judged.tally.num_failed == 6
    assert "[key]" in judged.judgments[0].extra["error"], "the server repeats the key"
    written = b"".join(file.read_bytes() for file in (tmp_path / "j.journal").iterdir())
    captured = capfd.readouterr()
    everything = [written.decode("latin-1"), repr(judged), caplog.text, *captured]
    assert not [text for text in everything if KEY in text]


def test_settings_are_sent_and_belong_to_the_identity(tmp_path: Path) -> None:
    with serving() as server:
        settings = {
            "temperature": None, "top_p": 0.9, "seed": 3, "max_tokens": 77,
            "token_limit": "max_completion_tokens", "extra_body": {"min_p": 0.1},
        }  # fmt: skip
        judge = endpoint(server, **settings)
        run(judge, tmp_path / "j.journal")
        sent = server.requests[0]
        assert {k: v for k, v in sent.items() if k != "messages"} == {
            "model": "served", "top_p": 0.9, "seed": 3, "max_completion_tokens": 77, "min_p": 0.1,
        }  # fmt: skip
        before = judge_identity(PAIRS, judge, baseline="base")
        for changed in ({"temperature": 0.5}, {"model": "other"}, {"seed": 4}):
            other = endpoint(server, **(settings | changed))
            assert judge_identity(PAIRS, other, baseline="base") != before
        longer = settings | {"max_tokens": 78}  # decides which replies end, and only those count
        same = endpoint(server, **longer, concurrency=1, usd_per_million=(1, 1))
        assert judge_identity(PAIRS, same, baseline="base") == before
        assert judge_identity(PAIRS, judge, baseline="another") != before


def test_judges_never_share_judgments(fault_free: list[Any], tmp_path: Path) -> None:
    with serving() as server:
        run(endpoint(server), tmp_path / "j.journal")
        run(endpoint(server, seed=1), tmp_path / "j.journal")
        assert len(server.requests) == 12
        assert run(endpoint(server), tmp_path / "j.journal").judgments == fault_free
        assert len(server.requests) == 12


def test_a_changed_answer_is_judged_anew_and_nothing_else(tmp_path: Path) -> None:
    with serving() as server:
        run(endpoint(server), tmp_path / "j.journal")
        changed = [replace(answers("ours")[0], turns=("new",)), *answers("ours")[1:]]
        judge_answers(
            PAIRS, endpoint(server), QUESTIONS, changed,
            baseline=answers("base"), journal=tmp_path / "j.journal",
        )  # fmt: skip
        assert len(server.requests) == 8


def test_equal_answers_of_two_systems_are_one_thing_to_judge(tmp_path: Path) -> None:
    twins = answers("ours") + [replace(answer, system="twin") for answer in answers("ours")]
    with serving() as server:
        judged = judge_answers(
            PAIRS, endpoint(server), QUESTIONS, twins,
            baseline=answers("base"), journal=tmp_path / "j.journal",
        )  # fmt: skip
        assert len(server.requests) == judged.calls == 6
    scores = {name: [g.score for g in judged.judgments if g.a == name] for name in ("ours", "twin")}
    assert scores["ours"] == scores["twin"]
    assert len(judged.judgments) == 12


def test_an_answer_that_is_not_there_is_a_missing_judgment(tmp_path: Path) -> None:
    with serving() as server:
        judged = judge_answers(
            PAIRS, endpoint(server), QUESTIONS, answers("ours", count=2),
            baseline=answers("base"), journal=tmp_path / "j.journal",
        )  # fmt: skip
        assert len(server.requests) == 4
    assert judged.tally.num_total == 6
    assert judged.tally.num_failed == 2
    assert judged.judgments[-1].extra == {"error": "there is no answer of 'ours'"}


def test_the_number_of_calls_is_never_above_the_limit(
    fault_free: list[Any], tmp_path: Path
) -> None:
    with serving("unparsable") as server:
        judge = endpoint(server)
        judged = run(judge, tmp_path / "j.journal", budget=Budget(max_calls=5))
        assert len(server.requests) == judged.new_calls == 5
        assert judged.stopped == "the limit of --max-calls 5 is reached"
        assert run(judge, tmp_path / "j.journal").judgments == fault_free
        assert len(server.requests) <= 12 + 5


def test_the_cost_is_counted_and_never_above_the_limit(tmp_path: Path) -> None:
    with serving() as server:
        # 100 and 10 tokens a call: 200 dollars. At worst about 2,000 tokens more.
        judge = endpoint(server, usd_per_million=(1e6, 1e7), max_tokens=10)
        plan = plan_judgments(PAIRS, judge, QUESTIONS, answers("ours"), answers("base"))
        worst = judge.worst_usd(plan[0].call)  # pyright: ignore[reportArgumentType]
        assert worst is not None
        judged = run(judge, tmp_path / "j.journal", budget=Budget(max_usd=2.5 * worst))
        assert judged.new_usd == 200.0 * judged.new_calls
        assert 0 < judged.new_calls < 6
        assert judged.new_usd <= 2.5 * worst
        rest = run(judge, tmp_path / "j.journal")
        assert rest.usd == 1200.0
        assert (rest.prompt_tokens, rest.completion_tokens) == (600, 60)


def test_a_limit_of_cost_needs_prices(tmp_path: Path) -> None:
    with serving() as server, pytest.raises(ConfigError, match="prices are not known"):
        run(endpoint(server), tmp_path / "j.journal", budget=Budget(max_usd=1.0))


def test_the_baseline_is_the_system_whose_answers_are_shown(tmp_path: Path) -> None:
    """A file may hold answers of others to questions that are not asked."""
    base = [Answer("not asked", "another", ("x",)), *answers("base")]
    judge = ExactJudge("x", _exact)
    journal = tmp_path / "j.journal"
    judged = judge_answers(PAIRS, judge, QUESTIONS, answers("ours"), baseline=base, journal=journal)
    assert {(g.b, g.judge_identity["baseline"]) for g in judged.judgments} == {("base", "base")}


def test_equal_answers_are_judged_in_both_orders() -> None:
    same = [replace(answer, system="base") for answer in answers("ours")]
    plan = plan_judgments(PAIRS, ExactJudge("x", _exact), QUESTIONS, answers("ours"), same)
    assert len({item.key for item in plan}) == 6


def test_failures_between_replies_do_not_end_a_run(tmp_path: Path) -> None:
    class Moody(ExactJudge):
        gives_up_after = 2
        num_calls = 0

        def reply(self, call: Call) -> Reply:
            self.num_calls += 1
            if self.num_calls % 2:
                raise CallFailed("not now", again=False)
            return super().reply(call)

    judged = run(Moody("moody", _exact), tmp_path / "j.journal")
    assert judged.stopped is None
    assert (judged.tally.num_failed, judged.tally.num_scored) == (3, 3)


def test_a_dry_run_counts_and_asks_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "j.journal"
    with serving() as server:
        judge = endpoint(server, usd_per_million=(1.0, 1.0), max_tokens=10)
        plan = plan_judgments(PAIRS, judge, QUESTIONS, answers("ours", count=2), answers("base"))
        counted = dry_run(judge, plan, journal=journal)
        assert counted[:4] == (6, 0, 2, 4)
        assert not journal.exists()
        assert server.requests == []
        run(judge, journal, budget=Budget(max_calls=2))
        assert dry_run(judge, plan, journal=journal).num_done <= 2
        run(judge, journal)
        assert dry_run(judge, plan, journal=journal)[:4] == (6, 4, 2, 0)
    letters = sum(len(m["content"]) for m in plan[0].call.messages)  # pyright: ignore[reportOptionalMemberAccess]
    assert counted.prompt_tokens == pytest.approx(letters, rel=0.05)
    assert counted.worst_usd == pytest.approx((2 * counted.prompt_tokens + 4 * 10) / 1e6)


JUDGE_PROCESS = """
import sys
from pathlib import Path
from test_judging import QUESTIONS, PAIRS, KEY, answers
from slackdlm.judging.endpoint import EndpointConfig, EndpointJudge
from slackdlm.judging.run import judge_answers
judge = EndpointJudge(EndpointConfig(
    model="served", base_url=sys.argv[1], key_variable="K", timeout=3.0, concurrency=1), {"K": KEY})
judged = judge_answers(PAIRS, judge, QUESTIONS, answers("ours"), baseline=answers("base"), journal=Path(sys.argv[2]),
    on_judged=lambda count, usd: print("judged", flush=True))
print(judged.tally.num_scored, flush=True)
"""


def start(server: JudgeServer, journal: Path) -> "subprocess.Popen[str]":
    path = os.pathsep.join([*sys.path, str(Path(__file__).parents[1] / "support")])
    return subprocess.Popen(
        [sys.executable, "-c", JUDGE_PROCESS, server.url, str(journal)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip


def test_a_killed_run_goes_on_and_two_processes_share_a_journal(
    fault_free: list[Any], tmp_path: Path
) -> None:
    journal = tmp_path / "j.journal"
    with serving() as server:
        with start(server, journal) as process:
            assert process.stdout is not None
            for _ in range(2):
                assert process.stdout.readline() == "judged\n"
            os.kill(process.pid, signal.SIGKILL)
        asked = len(server.requests)
        processes = [start(server, journal) for _ in range(2)]
        ends = [process.communicate()[0].split()[-1] for process in processes]
        assert ends == ["6", "6"]
        assert run(endpoint(server), journal).judgments == fault_free
        # At most what was under way when the first was killed, and what two asked at the same moment.
        assert len(server.requests) <= 6 + 1 + (6 - min(asked, 6)) + 1


def _exact(question: Question, shown: Any) -> str:
    return "[[A>B]]" if len(shown[0][0]) > len(shown[1][0]) else "[[A=B]]"


def test_an_exact_judge_goes_the_same_way(tmp_path: Path) -> None:
    judged = run(ExactJudge("length-1", _exact), tmp_path / "j.journal")
    assert {game.score for game in judged.judgments} == {0.5}
    assert judged.usd == 0.0


def test_grades_outside_the_scale_and_second_turns(tmp_path: Path) -> None:
    protocol = judging_protocol("mt-bench")
    question = Question("81", "writing", ({"role": "user", "content": "Say."},), ("Again.",))
    both = [Answer("81", "ours", ("two", "two")), Answer("81", "short", ("one",))]
    said = {"one": "[[11]]", "two": "Rating: [[7]]"}
    judge = ExactJudge("t", lambda question, shown: said[shown[0][-1]])
    judged = judge_answers(protocol, judge, [question], both, journal=tmp_path / "j.journal")
    grades = [g for g in judged.judgments if isinstance(g, Grade)]
    assert [(g.system, g.turn, g.score, g.status) for g in grades] == [
        ("ours", 1, 7.0, "ok"),
        ("ours", 2, 7.0, "ok"),
        ("short", 1, 11.0, "out_of_range"),
        ("short", 2, None, "failed"),
    ]
    assert grades[-1].extra == {"error": "turn 2 has no answer of 'short'"}


def test_wildbench_judges_empty_answers_by_itself(tmp_path: Path) -> None:
    protocol = judging_protocol("wildbench-pairs")
    question = Question(
        "s", "Math", ({"role": "user", "content": "1 + 1?"},), checklist=("Right?",)
    )
    judge = ExactJudge("t", lambda question, shown: '{"choice": "B++"}')
    judged = judge_answers(
        protocol, judge, [question], [Answer("s", "ours", ("2",))],
        baseline=[Answer("s", "base", (" ",))], journal=tmp_path / "j.journal",
    )  # fmt: skip
    assert [game.score for game in judged.judgments] == [1.0, 1.0]
    assert judged.calls == 0


@pytest.mark.parametrize(
    ("ours", "base", "message"),
    [
        (answers("ours"), None, "give the baseline's answers"),
        (answers("ours"), answers("ours"), "both called 'ours'.*another --name"),
        (answers("ours"), answers("a") + answers("b"), "expected one system, got 'a', 'b'"),
        (answers("ours") * 2, answers("base"), "answers question 'q0' twice"),
        ([Answer("other", "ours", ("x",))], answers("base"), "none of them is to one of the 3"),
    ],
)
def test_answers_that_do_not_fit_together_are_an_error(
    tmp_path: Path, ours: list[Answer], base: list[Answer] | None, message: str
) -> None:
    judge = ExactJudge("t", _exact)
    with pytest.raises(DataError, match=message):
        judge_answers(PAIRS, judge, QUESTIONS, ours, baseline=base, journal=tmp_path / "j.journal")


def test_a_graded_benchmark_has_no_baseline() -> None:
    judge = ExactJudge("t", _exact)
    with pytest.raises(DataError, match="give no baseline"):
        plan_judgments(
            judging_protocol("mt-bench"), judge, QUESTIONS, answers("ours"), answers("base")
        )


def test_an_interrupted_run_keeps_the_replies_that_were_under_way(tmp_path: Path) -> None:
    class StopHereError(Exception):
        pass

    def interrupt(count: int, usd: float | None) -> None:
        raise StopHereError

    with serving() as server:
        with pytest.raises(StopHereError):
            run(endpoint(server), tmp_path / "j.journal", on_judged=interrupt)
        asked = len(server.requests)
        (file,) = (tmp_path / "j.journal").iterdir()
        assert len(file.read_text().splitlines()) == asked == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000"}, r"expected an http\(s\) base_url"),
        ({"base_url": "http://user:word@host/v1"}, "base_url holds a key"),
        ({"concurrency": 0}, "must be positive"),
        ({"temperature": -1.0}, "temperature must be at least 0"),
        ({"usd_per_million": (-1.0, 1.0)}, "prices must be at least 0"),
    ],
)
def test_an_endpoint_that_cannot_be_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EndpointConfig(model="m", **settings)


def test_a_key_that_is_not_in_the_environment_is_an_error() -> None:
    with pytest.raises(ConfigError, match="variable SOME_KEY is not set"):
        EndpointJudge(EndpointConfig(model="m", key_variable="SOME_KEY"), {"SOME_KEY": " "})


@pytest.mark.parametrize("limit", [{"max_calls": -1}, {"max_usd": float("nan")}])
def test_a_limit_below_zero_is_an_error(limit: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected at least 0"):
        Budget(**limit)


def test_an_exact_judge_needs_no_journal_and_any_other_does(tmp_path: Path) -> None:
    both = {"answers": answers("ours"), "baseline": answers("base")}
    judge = ExactJudge("exact", lambda question, shown: "[[A>B]]")
    kept = judge_answers(PAIRS, judge, QUESTIONS, **both, journal=tmp_path / "j.journal")
    assert judge_answers(PAIRS, judge, QUESTIONS, **both, journal=None) == kept
    with serving() as server, pytest.raises(ConfigError, match="only an exact judge"):
        judge_answers(PAIRS, endpoint(server), QUESTIONS, **both, journal=None)
