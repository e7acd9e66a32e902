"""An answer belongs to the question it answers, not to the one that has its id now."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_questions import toy_model

from slackdlm.benchmarks import mt_bench
from slackdlm.benchmarks.answers import check_judged, read_answer_file, read_answers, read_questions
from slackdlm.errors import DataError
from slackdlm.judging.judges import ExactJudge
from slackdlm.judging.plan import plan_judgments, without_partner
from slackdlm.judging.protocols import judging_protocol
from slackdlm.judgments import Game, Grade
from slackdlm.records import Answer, Question
from slackdlm.sampling.answering import answer_questions
from slackdlm.sampling.sampler import Sampler, SamplerConfig

TEXTS = ["What is one?", "What is two?", "What is three?"]


def run(*arguments: object) -> int:
    from slackdlm.cli import main

    return main([str(argument) for argument in arguments])


def write(path: Path, rows: list[dict[str, Any]], *, as_list: bool = False) -> Path:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(json.dumps(rows) if as_list else lines)
    return path


def chat(*texts: str) -> list[dict[str, str]]:
    return [
        {"role": "assistant" if place % 2 else "user", "content": text}
        for place, text in enumerate(texts)
    ]


def own(system: str, texts: list[str]) -> list[dict[str, Any]]:
    """Our answers to questions without ids."""
    return [
        {"id": str(n), "turn": 1, "system": system, "text": f"{system} {n}", "prompt": chat(text)}
        for n, text in enumerate(texts)
    ]


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., int]:
    """``slackdlm judge`` of our own files, two systems' answers to `TEXTS`, with questions of these texts."""
    write(tmp_path / "ours.jsonl", own("ours", TEXTS))
    write(tmp_path / "base.jsonl", own("base", TEXTS))

    def command(texts: list[str]) -> int:
        questions = write(tmp_path / "q.jsonl", [{"prompt": text} for text in texts])
        return run(
            "judge", "--benchmark", "pairs", "--questions", questions, "--judge", "toy", "--answers",
            tmp_path / "ours.jsonl", "--baseline", tmp_path / "base.jsonl", "--output",
            tmp_path / "judged.jsonl", "--max-missing", 1,
        )  # fmt: skip

    return command


@pytest.mark.parametrize(
    ("texts", "question", "now"),
    [
        (["A new one at the top.", *TEXTS], "0", "A new one at the top."),
        ([TEXTS[0], "What is two, please?", TEXTS[2]], "1", "What is two, please?"),
    ],
)
def test_a_question_file_that_has_changed_since_is_refused(
    judge: Callable[..., int],
    tmp_path: Path,
    texts: list[str],
    question: str,
    now: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert judge(texts) == 2
    error = " ".join(capsys.readouterr().err.split())
    told = f"ours.jsonl: 'ours' answers question '{question}' as '{TEXTS[int(question)]}', but the question file has"
    assert f"{told} '{now}' there. It may have changed since" in error
    assert not (tmp_path / "judged.jsonl").exists()


def test_a_baseline_s_answers_belong_to_their_questions_too(
    judge: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "base.jsonl", own("base", ["Another", *TEXTS]))
    assert judge(TEXTS) == 2
    assert "base.jsonl: 'base' answers question '0' as 'Another'" in capsys.readouterr().err


def test_what_has_no_partner_is_named(
    judge: Callable[..., int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert judge([*TEXTS, "One more?"]) == 0
    told = caplog.text
    for system in ("ours", "base"):
        assert f"{system}.jsonl: questions without an answer: 1 of '{system}' ('3')" in told
    caplog.clear()
    assert judge(TEXTS[:1]) == 0
    assert "answers to questions that are not asked: 2 of 'ours' ('1', '2')" in caplog.text
    caplog.clear()
    assert judge(TEXTS) == 0
    assert not caplog.text


def test_a_later_turn_belongs_to_its_question(tmp_path: Path) -> None:
    first = own("ours", TEXTS[:1])
    second = {**first[0], "turn": 2, "prompt": chat(TEXTS[0], "ours 0", "And then?")}
    answers = read_answers(write(tmp_path / "a.jsonl", [*first, second]))
    judge = ExactJudge("t", lambda question, shown: "[[5]]")

    def plan(*later: str) -> int:
        question = Question("0", "writing", ({"role": "user", "content": TEXTS[0]},), later)
        return len(plan_judgments(judging_protocol("mt-bench"), judge, [question], answers).items)

    assert plan("And then?") == 2
    with pytest.raises(DataError, match="as 'And then\\?', but the question file has 'Why' there"):
        plan("Why")
    with pytest.raises(DataError, match="as 'And then\\?', but the question file has '' there"):
        plan()


# The same of published layouts: an answer's own text, and a question file with one row shifted


def arena(folder: Path, texts: list[str]) -> tuple[Path, Path]:
    questions = [{"uid": str(n), "category": "hard_prompt", "prompt": t} for n, t in enumerate(texts)]  # fmt: skip
    asked = [{"role": "system", "content": "Be brief."}, *chat(TEXTS[0])]
    answer = {"uid": "0", "ans_id": "x", "model": "m"}
    answer |= {"messages": [*asked, {"role": "assistant", "content": {"answer": "1"}}]}
    return write(folder / "q", questions), write(folder / "a", [answer])


def wildbench(folder: Path, texts: list[str]) -> tuple[Path, Path]:
    questions = [
        {"session_id": str(n), "conversation_input": chat("Hi", "Hello", t), "checklist": [], "primary_tag": "Math"}
        for n, t in enumerate(texts)
    ]  # fmt: skip
    history = ["Hi", "Hello", TEXTS[0]]
    answer = {"session_id": "0", "chat_history": history, "output": ["1"], "generator": "m"}
    return write(folder / "q", questions), write(folder / "a", [answer], as_list=True)


def creative(folder: Path, texts: list[str]) -> tuple[Path, Path]:
    prompts = {
        str(n): {"writing_prompt": f"<SEED> {t}", "category": "c", "seed_modifiers": ["Mud.", "Rain."]}
        for n, t in enumerate(texts)
    }  # fmt: skip
    task = {"base_prompt": f"<SEED> {TEXTS[0]}", "results_by_modifier": {"Mud.": {"model_response": "1"}}}  # fmt: skip
    run = {"r": {"test_model": "m", "judge_model": "j", "creative_tasks": {"1": {"0": task}}}}
    (folder / "q").write_text(json.dumps(prompts))
    (folder / "a").write_text(json.dumps(run))
    return folder / "q", folder / "a"


@pytest.mark.parametrize(
    ("write_files", "name"),
    [(arena, "arena-hard"), (wildbench, "wildbench"), (creative, "creative-writing")],
)
def test_published_answers_that_repeat_the_question_are_compared_with_it(
    tmp_path: Path, rubric: Path, write_files: Callable[..., Any], name: str
) -> None:
    protocol = judging_protocol(
        name, judge_prompt=rubric if name == "creative-writing" else None
    )  # fmt: skip
    judge = ExactJudge("t", lambda question, shown: "")

    def plan(texts: list[str]) -> int:
        questions, answers = write_files(tmp_path, texts)
        base = None
        if protocol.num_shown == 2:
            base = [Answer(str(n), "base", ("x",)) for n in range(len(texts))]
        read = protocol.read_questions(questions, None)
        return len(plan_judgments(protocol, judge, read, read_answer_file(answers), base).items)

    assert plan(TEXTS) > 0
    with pytest.raises(
        DataError, match=r"/a: 'm' answers question '0(#1)?' as .*What is one\?', but"
    ):
        plan(["New.", *TEXTS])


def test_a_changed_question_of_the_same_id_is_asked_anew(tmp_path: Path) -> None:
    model, config = toy_model(), SamplerConfig(canvas_length=8, steps=2)
    asked = ["tell cat", "tell dog"]
    for last in ("dog", "tree"):
        asked[1] = f"tell {last}"
        questions = read_questions(write(tmp_path / "q.jsonl", [{"prompt": t} for t in asked]))
        answer_questions(Sampler(model, config), questions, tmp_path / "a.jsonl")
        answers = read_answers(tmp_path / "a.jsonl")
        assert [answer.messages[0]["content"] for answer in answers] == asked
        assert not without_partner(questions, answers)


def test_references_that_are_not_used_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    questions = write(
        tmp_path / "q",
        [
            {"question_id": n, "category": category, "turns": ["a", "b"]}
            for n, category in ((1, "math"), (2, "writing"))
        ],
    )

    def references(*rows: tuple[int, str]) -> Path:
        return write(
            tmp_path / "r",
            [
                {"question_id": n, "model_id": model, "choices": [{"turns": ["x", "y"]}]}
                for n, model in rows
            ],
        )

    mt_bench.read_questions(questions, references=references((1, "gpt-4")))
    assert not caplog.text
    told = mt_bench.read_questions(
        questions, references=references((1, "gpt-4"), (2, "gpt-4"), (3, "gpt-4"))
    )
    assert [question.reference for question in told] == [("x", "y"), ()]
    assert "references not used: 2 of 3, the first to question '2'" in caplog.text
    with pytest.raises(DataError, match="answers of one model, got 'gpt-4', 'other'"):
        mt_bench.read_questions(questions, references=references((1, "gpt-4"), (1, "other")))


def test_answers_beside_judgments_are_those_that_were_judged() -> None:
    prompt = ({"role": "user", "content": "What?\n<A>\nfirst answer\n<B>\nsecond answer"},)
    shared: dict[str, Any] = {
        "category": None, "judge_identity": {}, "status": "ok", "prompt": prompt, "score": 1.0,
    }  # fmt: skip
    game = Game(question_id="0", a="a", b="b", order=0, verdict="A", **shared)
    grade = Grade(question_id="0", system="a", turn=1, **shared)
    right = [Answer("0", "a", (" first answer",)), Answer("0", "b", ("second answer",))]
    check_judged([game, grade], right)
    check_judged([game], [Answer("1", "a", ("other",)), Answer("0", "c", ("other",))])
    for one in (game, grade):
        with pytest.raises(DataError, match="answers question '0' with 'other', which the judge"):
            check_judged([one], [Answer("0", "a", ("other",))])
