"""Questions that have moved under their answers, and chat templates of other models."""

import copy
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from plausible_inputs import Addition, Door, Result, listening, tokenizer, write_rows

from slackdlm.benchmarks.answers import read_answers, read_questions
from slackdlm.errors import SlackDLMError
from slackdlm.judging.judges import ExactJudge
from slackdlm.judging.plan import plan_judgments
from slackdlm.judging.protocols import judging_protocol
from slackdlm.models.chat import encode_prompt

NUM = 5


def question(number: int) -> dict[str, Any]:
    return {"prompt": f"riddle {number} of them"}


def answer(number: int, line: int, system: str) -> dict[str, Any]:
    """A row of ``slackdlm answer`` for a question that was on that line."""
    return {
        "id": str(line),
        "turn": 1,
        "system": system,
        "prompt": [{"role": "user", "content": question(number)["prompt"]}],
        "text": f"about {number} by {system}",
    }


@st.composite
def joins(draw: st.DrawFn) -> Addition:
    """A question file that was edited after it was answered."""
    rows = [question(n) for n in range(NUM)]
    change = draw(
        st.sampled_from(("insert", "delete", "swap", "edit", "twice", "append", "ids", "none"))
    )
    place = draw(st.integers(0, NUM - 2))
    if change == "insert":
        rows.insert(place, {"prompt": "a new riddle"})
    elif change == "delete":
        del rows[place]
    elif change == "swap":
        rows[place], rows[place + 1] = rows[place + 1], rows[place]
    elif change == "edit":
        rows[place] = {"prompt": f"{rows[place]['prompt']}, in French"}
    elif change == "twice":
        rows.insert(place, dict(rows[place]))
    elif change == "append":
        rows.append({"prompt": "a new riddle"})
    elif change == "ids":
        rows = [row | {"id": str(NUM - 1 - n)} for n, row in enumerate(rows)]
    return Addition(rows, change)


def judge_joined(addition: Addition, folder: Path) -> Result:
    """No call shows an answer under another question than its own."""
    file = write_rows(folder / "q.jsonl", addition.content)
    answered = {
        system: write_rows(folder / f"{system}.jsonl", [answer(n, n, system) for n in range(NUM)])
        for system in ("one", "two")
    }
    judge = ExactJudge("none", lambda question, shown: "[[A=B]]")
    with listening() as lines:
        try:
            planned = plan_judgments(
                judging_protocol("pairs"), judge, read_questions(file), read_answers(answered["one"]),
                read_answers(answered["two"]),
            )  # fmt: skip
        except SlackDLMError as error:
            return Result("", str(error), refused=True)
    for each in planned.items:
        if each.call is not None:
            text = each.call.messages[-1]["content"]
            numbers = set(re.findall(r"(?:riddle|about) (\d)", text))
            assert len(numbers) == 1, f"{addition.name}: question and answers of {numbers}"
            assert "new riddle" not in text, (
                f"{addition.name}: answers under a question never asked"
            )
            assert "French" not in text, (
                f"{addition.name}: answers under a question that has changed"
            )
    return Result("zebra", " ".join(lines), refused=False)


BEGIN = ("", "{{ bos_token }}", "<|startoftext|>", "Chat of today\n")
OPENINGS = (
    "<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n", "[{{ m.role }}] ", "### {{ m.role|capitalize }}:\n", "",
    "{{ '[INST] ' if m.role == 'user' else '' }}", "{{ m.role }}<|eot_id|>",
)  # fmt: skip
CONTENTS = (
    "{{ m.content }}", "{{ m.content|trim }}", "{{ m['content'] + '' }}", "{{ m.content|upper }}",
    "{{ m.content|replace('a', 'b') }}", "{{ m.content }}{{ m.content }}", "{{ m.content|tojson }}",
    "{% if m.role == 'assistant' %}{{ m.content }}{% else %}{{ m.content|trim }}{% endif %}",
    "{% if m.role != 'system' %}{{ m.content }}{% endif %}", "{{ m.content[:20] }}",
    "{% if 'zebra' in m.content %}!{% endif %}{{ m.content }}", "{{ m.content|length }}{{ m.content }}",
)  # fmt: skip
ENDS = (
    "<|eot_id|>",
    "<|eot_id|>\n",
    "\n",
    "[/x]\n",
    "{{ ' [/INST]' if m.role == 'user' else '<|eot_id|>' }}",
)
REPLIES = (
    "",
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "[assistant] ",
    "### Assistant:\n",
)
TEXTS = st.sampled_from(
    (
        "hello",
        "  indented",
        "ends \n",
        "the zebra runs",
        "a banana",
        "caf\u00e9 \u2603",
        "x" * 30,
        "<|eot_id|> said",
        "{{ m }}",
    )
)


@st.composite
def templates(draw: st.DrawFn) -> Addition:
    """A template put together from the habits of published ones, and a conversation."""
    pick = [draw(st.sampled_from(parts)) for parts in (BEGIN, OPENINGS, CONTENTS, ENDS, REPLIES)]
    begin, opening, content, end, reply = pick
    template = f"{begin}{{% for m in messages %}}{opening}{content}{end}{{% endfor %}}"
    template += f"{{% if add_generation_prompt %}}{reply}{{% endif %}}"
    roles = ["system"] * draw(st.booleans()) + draw(
        st.sampled_from((["user"], ["user", "assistant", "user"]))
    )
    messages = [{"role": role, "content": draw(TEXTS)} for role in roles]
    return Addition((template, messages), content)


def encode_with(addition: Addition, folder: Path) -> Result:
    """The ids of ``apply_chat_template``, where no content spells a special token; else a word."""
    template, messages = addition.content
    own = copy.deepcopy(tokenizer())
    own.chat_template = template
    with listening() as lines:
        try:
            ids = encode_prompt(own, messages)
        except SlackDLMError as error:
            return Result("", str(error), refused=True)
    if any("<|eot_id|>" in message["content"] for message in messages):
        end = own.convert_tokens_to_ids("<|eot_id|>")
        plain = [m | {"content": m["content"].replace("<|eot_id|>", "END")} for m in messages]
        assert ids.count(end) == encode_prompt(own, plain).count(end), (
            "a content's words became a special token"
        )
        return Result("zebra", "", refused=False)
    rendered = own.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    expected = own(rendered, add_special_tokens=False)["input_ids"]
    said = " ".join(lines)
    assert ids == expected or "template" in said, (
        f"{json.dumps(template)} on {messages}: {own.decode(ids)!r}"
    )
    return Result("zebra", said, refused=False)


def all_doors() -> list[Door]:
    return [
        Door("answers and questions", joins(), judge_joined),
        Door("chat templates", templates(), encode_with, sample=80),
    ]
