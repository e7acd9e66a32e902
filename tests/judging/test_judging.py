"""Whatever an endpoint does, a run ends with the judgments of a run without faults, or says what is missing."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judge_server import FAULTS, JudgeServer, serving, verdict_for

from slackdlm.errors import ConfigError, DataError
from slackdlm.judging.budget import Budget
from slackdlm.judging.config import JudgeConfig
from slackdlm.judging.endpoint import EndpointJudge
from slackdlm.judging.judges import Call, CallFailed, ExactJudge, Judge, Reply
from slackdlm.judging.plan import Plan, dry_run, plan_judgments
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


def endpoint(server: JudgeServer, *, max_retries: int = 6, **settings: Any) -> EndpointJudge:
    shared: dict[str, Any] = {"timeout": 0.3, "concurrency": 6, **settings}
    config = JudgeConfig(
        kind="openai", model="served", base_url=server.url, key_variable="TEST_KEY"
    )
    config = replace(config, **shared)
    judge = EndpointJudge(config, {"TEST_KEY": KEY}, max_retries=max_retries)
    server.clients.append(judge)
    return judge


def plan(judge: Judge, ours: list[Answer] | None = None) -> Plan:
    """Both orders of the answers to three questions, six calls."""
    return plan_judgments(PAIRS, judge, QUESTIONS, ours or answers("ours"), answers("base"))


def run(judge: Judge, journal: Path, ours: list[Answer] | None = None, **options: Any) -> Judged:
    return judge_answers(plan(judge, ours), journal=journal, **options)


def longer(question: Question, shown: Any) -> str:
    return "[[A>B]]" if len(shown[0][0]) > len(shown[1][0]) else "[[A=B]]"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "j.journal"


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


# --- faults ---


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_changes_no_judgment(fault: str, fault_free: list[Any], journal: Path) -> None:
    with serving(fault) as server:
        judged = run(endpoint(server), journal)
        assert len(server.requests) == 12, "every prompt met the fault once"
    assert judged.judgments == fault_free
    assert judged.stopped is None


def test_all_faults_one_after_another_change_no_judgment(
    fault_free: list[Any], journal: Path
) -> None:
    with serving("429", "unparsable", "close", "malformed", "500", "no_choices") as server:
        judged = run(endpoint(server, max_retries=3), journal)
    assert judged.judgments == fault_free
    assert judged.total.calls == 6 * 4, "replies that could not be used are calls of their own"


def test_what_failed_is_recorded_as_failed_and_asked_again_by_the_next_run(
    fault_free: list[Any], journal: Path
) -> None:
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
    assert (again.new.calls, again.total.calls) == (0, 6 + 24 + 6)


def test_a_long_retry_after_is_waited_for_and_not_guessed(journal: Path) -> None:
    with serving("429", retry_after="1.2") as server:
        started = time.monotonic()
        run(endpoint(server), journal)
        # The client's own guess would be half a second.
        assert time.monotonic() - started > 1.2


@pytest.mark.parametrize("fault", ["401", "404"])
def test_a_refused_key_or_model_ends_the_run_at_once(fault: str, journal: Path) -> None:
    with serving(fault, forever=True) as server:
        with pytest.raises(ConfigError, match=r"refuses 'served'.*\[key\]") as caught:
            run(endpoint(server, concurrency=1), journal)
        assert len(server.requests) == 1
    assert KEY not in str(caught.value)


def test_an_endpoint_that_always_fails_is_given_up(journal: Path) -> None:
    questions = [replace(QUESTIONS[0], id=f"q{n}") for n in range(20)]
    both = [[Answer(q.id, name, (name + q.id,)) for q in questions] for name in ("ours", "base")]
    with serving("400", forever=True) as server:
        judge = endpoint(server, max_retries=0, concurrency=1)
        judged = judge_answers(plan_judgments(PAIRS, judge, questions, *both), journal=journal)
        assert len(server.requests) == 20
    assert "20 calls in a row failed" in str(judged.stopped)
    assert judged.tally.num_failed == judged.tally.num_total == 40


def test_failures_between_replies_do_not_end_a_run(journal: Path) -> None:
    class Moody(ExactJudge):
        gives_up_after = 2
        num_calls = 0

        def reply(self, call: Call) -> Reply:
            self.num_calls += 1
            if self.num_calls % 2:
                raise CallFailed("not now", again=False)
            return super().reply(call)

    judged = run(Moody("moody", longer), journal)
    assert judged.stopped is None
    assert (judged.tally.num_failed, judged.tally.num_scored) == (3, 3)


@pytest.mark.parametrize("host", ["dead port", "no such host"])
def test_a_server_that_nobody_meets_is_one_error_within_seconds(host: str, journal: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    url = url if host == "dead port" else "http://judge.invalid:8000/v1"
    config = JudgeConfig(kind="openai", model="m", base_url=url, key_variable="K")
    judge = EndpointJudge(config, {"K": KEY})
    started = time.monotonic()
    for _ in range(2):
        with pytest.raises(ConfigError, match=f"nothing answers at {url} .*start the server") as no:
            run(judge, journal)
        assert KEY not in str(no.value)
    assert time.monotonic() - started < 10
    judge.close()


def test_a_server_that_was_there_is_tried_again(fault_free: list[Any], journal: Path) -> None:
    """It goes away behind the first reply and comes back, under the same address, before the retries end."""
    with serving() as server:
        judge = endpoint(server, concurrency=1)
        port = server.server_address[1]
        gone, back = threading.Event(), list[JudgeServer]()

        def on_judged(count: int, usd: float | None) -> None:
            if not gone.is_set():
                gone.set()
                server.shutdown()
                server.server_close()
                judge.close()  # a connection kept alive would outlive its server
                judge._client = endpoint(server)._client
                threading.Timer(0.7, come_back).start()

        def come_back() -> None:
            revived = JudgeServer([], port=port)
            back.append(revived)
            threading.Thread(target=revived.serve_forever, kwargs={"poll_interval": 0.01}).start()

        try:
            judged = run(judge, journal, on_judged=on_judged)
        finally:
            judge.close()
            for revived in back:
                revived.shutdown()
                revived.server_close()
    assert judged.judgments == fault_free
    assert len(server.requests) + len(back[0].requests) == 6


# --- the key, and what decides a judgment ---


def test_the_key_is_sent_and_written_nowhere(
    journal: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    with serving("500", "400", forever=True) as server:
        judged = run(endpoint(server, max_retries=1), journal)
        assert {h["authorization"] for h in server.headers} == {f"Bearer {KEY}"}
    assert judged.tally.num_failed == 6
    assert "[key]" in judged.judgments[0].extra["error"], "the server repeats the key"
    written = b"".join(file.read_bytes() for file in journal.iterdir())
    everything = [written.decode("latin-1"), repr(judged), caplog.text, *capfd.readouterr()]
    assert not [text for text in everything if KEY in text]


def test_settings_are_sent_and_belong_to_the_identity(journal: Path) -> None:
    with serving() as server:
        settings = {
            "temperature": None, "top_p": 0.9, "seed": 3, "max_tokens": 77,
            "token_limit": "max_completion_tokens", "extra_body": {"min_p": 0.1},
        }  # fmt: skip
        judge = endpoint(server, **settings)
        run(judge, journal)
        sent = server.requests[0]
        assert {k: v for k, v in sent.items() if k != "messages"} == {
            "model": "served", "top_p": 0.9, "seed": 3, "max_completion_tokens": 77, "min_p": 0.1,
        }  # fmt: skip
        before = plan(judge).identity
        for changed in ({"temperature": 0.5}, {"model": "other"}, {"seed": 4}):
            assert plan(endpoint(server, **(settings | changed))).identity != before
        more = settings | {"max_tokens": 78}  # decides which replies end, and only those count
        assert plan(endpoint(server, **more, concurrency=1, usd_per_million=(1, 1))).identity == (
            before
        )
        other = [replace(answer, system="another") for answer in answers("base")]
        assert plan_judgments(PAIRS, judge, QUESTIONS, answers("ours"), other).identity != before


def test_only_what_is_another_judgment_is_asked(fault_free: list[Any], journal: Path) -> None:
    with serving() as server:
        run(endpoint(server), journal)
        run(endpoint(server, seed=1), journal)
        assert len(server.requests) == 12, "another judge"
        changed = [replace(answers("ours")[0], turns=("new",)), *answers("ours")[1:]]
        run(endpoint(server), journal, changed)
        assert len(server.requests) == 12 + 2, "another answer"
        gone = endpoint(server)
    assert run(gone, journal).judgments == fault_free, "no server is needed"


def test_equal_answers_of_two_systems_are_one_thing_to_judge(journal: Path) -> None:
    twins = answers("ours") + [replace(answer, system="twin") for answer in answers("ours")]
    with serving() as server:
        judged = run(endpoint(server), journal, twins)
        assert len(server.requests) == judged.total.calls == 6
    scores = {name: [g.score for g in judged.judgments if g.a == name] for name in ("ours", "twin")}
    assert scores["ours"] == scores["twin"]
    assert len(judged.judgments) == 12


def test_equal_answers_are_judged_in_both_orders() -> None:
    same = [replace(answer, system="ours") for answer in answers("base")]
    assert len(plan(ExactJudge("x", longer), same).calls()) == 6


def test_an_answer_that_is_not_there_is_a_missing_judgment(journal: Path) -> None:
    with serving() as server:
        judged = run(endpoint(server), journal, answers("ours", count=2))
        assert len(server.requests) == 4
    assert (judged.tally.num_total, judged.tally.num_failed) == (6, 2)
    assert judged.judgments[-1].extra == {"error": "there is no answer of 'ours'"}


# --- what it costs ---


def test_the_number_of_calls_is_never_above_the_limit(fault_free: list[Any], journal: Path) -> None:
    with serving("unparsable") as server:
        judge = endpoint(server)
        judged = run(judge, journal, budget=Budget(max_calls=5))
        assert len(server.requests) == judged.new.calls == 5
        assert judged.stopped == "the limit of --max-calls 5 is reached"
        assert run(judge, journal).judgments == fault_free
        assert len(server.requests) <= 12 + 5


def test_the_cost_is_counted_and_never_above_the_limit(journal: Path) -> None:
    with serving() as server:
        # 100 and 10 tokens a call: 200 dollars. At worst about 2,000 tokens more.
        judge = endpoint(server, usd_per_million=(1e6, 1e7), max_tokens=10)
        worst = judge.worst_usd(next(iter(plan(judge).calls().values())))
        assert worst is not None
        judged = run(judge, journal, budget=Budget(max_usd=2.5 * worst))
        assert judged.new.usd == 200.0 * judged.new.calls
        assert 0 < judged.new.calls < 6
        assert judged.new.usd <= 2.5 * worst
        assert run(judge, journal).total == (6, 600, 60, 1200.0)
        with pytest.raises(ConfigError, match="prices are not known"):
            run(endpoint(server, seed=1), journal, budget=Budget(max_usd=1.0))


def test_a_dry_run_counts_and_asks_nothing(journal: Path) -> None:
    with serving() as server:
        judge = endpoint(server, usd_per_million=(1.0, 1.0), max_tokens=10)
        planned = plan(judge, answers("ours", count=2))
        counted = dry_run(planned, journal=journal)
        assert counted[:4] == (6, 0, 2, 4)
        assert not journal.exists()
        assert server.requests == []
        run(judge, journal)
        assert dry_run(planned, journal=journal)[:4] == (6, 4, 2, 0)
    texts = [m["content"] for call in planned.calls().values() for m in call.messages]
    assert counted.prompt_tokens == pytest.approx(sum(map(len, texts)) / 4, rel=0.05)
    assert counted.worst_usd == pytest.approx((2 * counted.prompt_tokens + 4 * 10) / 1e6)


# --- kills ---

JUDGE_PROCESS = """
import sys
from pathlib import Path
from test_judging import KEY, plan
from slackdlm.judging.config import JudgeConfig
from slackdlm.judging.endpoint import EndpointJudge
from slackdlm.judging.run import judge_answers
judge = EndpointJudge(JudgeConfig(kind="openai", model="served", base_url=sys.argv[1], key_variable="K",
    timeout=3.0, concurrency=1), {"K": KEY})
judged = judge_answers(
    plan(judge), journal=Path(sys.argv[2]), on_judged=lambda count, usd: print("judged", flush=True))
print(judged.tally.num_scored, flush=True)
"""


def start(server: JudgeServer, journal: Path) -> "subprocess.Popen[str]":
    path = os.pathsep.join([*sys.path, str(Path(__file__).parents[1] / "support")])
    return subprocess.Popen(
        [sys.executable, "-c", JUDGE_PROCESS, server.url, str(journal)],
        stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip


def test_a_killed_run_goes_on_and_two_processes_share_a_journal(
    fault_free: list[Any], journal: Path
) -> None:
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


def test_an_interrupted_run_keeps_the_replies_that_were_under_way(journal: Path) -> None:
    class StopHereError(Exception):
        pass

    def interrupt(count: int, usd: float | None) -> None:
        raise StopHereError

    with serving() as server:
        with pytest.raises(StopHereError):
            run(endpoint(server), journal, on_judged=interrupt)
        (file,) = journal.iterdir()
        assert len(file.read_text().splitlines()) == len(server.requests) == 6


# --- other judges and protocols ---


def test_an_exact_judge_needs_no_journal_and_any_other_does(journal: Path) -> None:
    judge = ExactJudge("length-1", longer)
    kept = run(judge, journal)
    assert {game.score for game in kept.judgments} == {0.5}
    assert kept.total.usd == 0.0
    assert judge_answers(plan(judge), journal=None) == kept
    with serving() as server, pytest.raises(ConfigError, match="only an exact judge"):
        judge_answers(plan(endpoint(server)), journal=None)


def test_grades_outside_the_scale_and_second_turns() -> None:
    question = Question("81", "writing", ({"role": "user", "content": "Say."},), ("Again.",))
    both = [Answer("81", "ours", ("two", "two")), Answer("81", "short", ("one",))]
    said = {"one": "[[11]]", "two": "Rating: [[7]]"}
    judge = ExactJudge("t", lambda question, shown: said[shown[0][-1]])
    planned = plan_judgments(judging_protocol("mt-bench"), judge, [question], both)
    grades = [g for g in judge_answers(planned, journal=None).judgments if isinstance(g, Grade)]
    assert [(g.system, g.turn, g.score, g.status) for g in grades] == [
        ("ours", 1, 7.0, "ok"),
        ("ours", 2, 7.0, "ok"),
        ("short", 1, 11.0, "out_of_range"),
        ("short", 2, None, "failed"),
    ]
    assert grades[-1].extra == {"error": "turn 2 has no answer of 'short'"}


def test_wildbench_judges_empty_answers_by_itself() -> None:
    question = Question("s", "Math", QUESTIONS[0].messages, checklist=("Right?",))
    judge = ExactJudge("t", lambda question, shown: '{"choice": "B++"}')
    planned = plan_judgments(
        judging_protocol("wildbench-pairs"), judge, [question],
        [Answer("s", "ours", ("2",))], [Answer("s", "base", (" ",))],
    )  # fmt: skip
    judged = judge_answers(planned, journal=None)
    assert [game.score for game in judged.judgments] == [1.0, 1.0]
    assert judged.total.calls == 0


@pytest.mark.parametrize(
    ("protocol", "ours", "base", "message"),
    [
        ("pairs", answers("ours"), None, "give the baseline's answers"),
        ("mt-bench", answers("ours"), answers("base"), "give no baseline"),
        ("pairs", answers("ours"), answers("ours"), "both called 'ours'.*another --name"),
        ("pairs", answers("ours"), answers("a") + answers("b"), "one system, got 'a', 'b'"),
        ("pairs", answers("ours") * 2, answers("base"), "answers question 'q0' twice"),
        ("pairs", [Answer("x", "ours", ("x",))], answers("base"), "to one of the 3 questions"),
    ],
)
def test_answers_that_do_not_fit_together_are_an_error(
    protocol: str, ours: list[Answer], base: list[Answer] | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        plan_judgments(judging_protocol(protocol), ExactJudge("t", longer), QUESTIONS, ours, base)


def test_the_baseline_is_the_system_whose_answers_are_shown() -> None:
    """A file may hold answers of others to questions that are not asked."""
    base = [Answer("not asked", "another", ("x",)), *answers("base")]
    judge = ExactJudge("x", longer)
    planned = plan_judgments(PAIRS, judge, QUESTIONS, answers("ours"), base)
    assert {item.systems for item in planned.items} == {("ours", planned.identity["baseline"])}
    assert planned.identity["baseline"] == "base"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000"}, r"base_url: expected an http\(s\) address"),
        ({"base_url": "http://user:word@host/v1"}, "base_url: holds a key"),
        ({"concurrency": 0}, "concurrency: expected"),
        ({"temperature": -1.0}, "temperature: expected"),
        ({"usd_per_million": (-1.0, 1.0)}, "usd_per_million.*: expected"),
        ({}, "variable OPENAI_API_KEY is not set"),
        ({"key_variable": "SOME_KEY"}, "variable SOME_KEY is not set"),
    ],
)
def test_an_endpoint_that_cannot_be_is_an_error(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EndpointJudge(JudgeConfig(kind="openai", model="m", **settings), {"SOME_KEY": " "})


@pytest.mark.parametrize("limit", [{"max_calls": -1}, {"max_usd": float("nan")}])
def test_a_limit_below_zero_is_an_error(limit: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected at least 0"):
        Budget(**limit)
