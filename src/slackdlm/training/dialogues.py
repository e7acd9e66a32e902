"""What does a row say? Its conversation, which of its turns are to be learnt, and the columns nobody reads."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from slackdlm.errors import DataError, counted, one_line
from slackdlm.models.messages import is_empty, parsed, read_messages
from slackdlm.training.data_config import ColumnsConfig, Format
from slackdlm.training.rows import Row

_TURNS = ("messages", "conversations", "conversation", "dialogue", "dialog", "data")
_PROMPTS = ("prompt", "question", "query")
_RESPONSES = ("response", "completion", "answer", "output")
_INPUTS = ("input", "context")
_SYSTEMS = ("system", "system_prompt")
_LEARN = (
    *("weight", "loss_weight", "loss_scale", "loss_mask", "loss", "learn"),
    *("train", "training", "train_detail", "train_on_turn", "trainable"),
)
"""Fields of a turn that say whether it is learnt: OpenAI's and Mistral's, axolotl's, ms-swift's, xtuner's."""
_NOT_LEARN = ("mask", "masked")
_ROW_LEARN = ("weight", "loss_weight", "sample_weight", "learn", "train", "label", "kto_tag")
"""Columns that say it of a whole row; KTO's label is false where the completion is a bad one."""
_TOKEN_MASKS = ("assistant_masks", "assistant_mask", "completion_mask", "loss_mask")
_TRUTH: dict[object, bool] = {"0": False, "false": False, "1": True, "true": True}


class Dialogue(NamedTuple):
    """One row of the data."""

    messages: list[dict[str, object]]
    """Turns with ``role``, ``content`` and whatever else they say; what ``content`` is, is checked where they are
    encoded. An assistant's with ``learn: False`` is context alone."""
    source: str
    """``file:line``, for messages."""
    tools: object = None
    """The tools that the assistant may call."""
    form: str = "messages"
    """What the row was read as."""
    used: tuple[str, ...] = ()
    """Columns read."""
    unused: tuple[str, ...] = ()
    """Columns that hold something and are not read."""


def read_dialogue(
    row: Row, *, columns: ColumnsConfig | None = None, form: Format = "auto"
) -> Dialogue:
    """The dialogue of a row.

    Args:
        row: From :func:`slackdlm.training.rows.read_rows`.
        columns: Its columns by name; no other is read.
        form: What it is, if the columns are not named. ``auto`` takes the one that it can be.

    Raises:
        DataError: If it is none of them or could be two, or a field of it has no clear meaning; names file and line.
    """
    if columns is None:
        kind, used = _recognised(row, form)
    else:
        kind = "messages" if columns.messages else "prompt_response"
        used = [columns.messages] if columns.messages else [columns.prompt, columns.response]
        for column in used:
            if column not in row.columns:
                what = "a list of turns in" if columns.messages else "text in column"
                raise DataError(
                    f"{row.source}: expected {what} {column!r}; {_way(row, 'data.columns=null')}"
                )
    messages = _turns(row, used[0]) if kind == "messages" else _pair(row, used)
    tools = None
    if columns is None:
        _add_system(row, messages, used)
        if not is_empty(row.columns.get("tools")):
            tools = parsed(row.columns["tools"])
    _mark_learnt(row, messages, used)
    known = used if tools is None else (*used, "tools")
    unused = [
        name for name, held in row.columns.items() if name not in known and not is_empty(held)
    ]
    return Dialogue(messages, row.source, tools, kind, tuple(used), tuple(unused))


def description(
    dialogues: Sequence[Dialogue], written: Collection[str], columns: ColumnsConfig | None
) -> tuple[str, bool]:
    """What the rows were read as and the fields that are not used, and whether there is one of these.

    Args:
        dialogues: All of them.
        written: Fields of turns, and ``tools``, that the chat format writes.
        columns: As they were read with.
    """
    forms, unused = Counter[str](), Counter[str]()
    used: dict[str, dict[str, None]] = {}
    num_context = 0
    for dialogue in dialogues:
        forms[dialogue.form] += 1
        used.setdefault(dialogue.form, {}).update(dict.fromkeys(dialogue.used))
        own = dict.fromkeys(
            name for turn in dialogue.messages for name in _unwritten(turn, written)
        )
        unused.update([*dialogue.unused, *(f"{name} (of turns)" for name in own)])
        if dialogue.tools is not None and "tools" not in written:
            unused["tools"] += 1
        if dialogue.messages and dialogue.messages[-1]["role"] != "assistant":
            unused["turns behind the last answer"] += 1
        num_context += sum(turn.get("learn") is False for turn in dialogue.messages)
    read = "; ".join(
        f"{counted(number, 'row')} read as {form}: {', '.join(_shown(name) for name in used[form])}"
        for form, number in forms.items()
    )
    if num_context:
        read += f"; {counted(num_context, 'answer')} marked not to be learnt, context alone"
    if not unused:
        return read, False
    total = len(dialogues)
    named = ", ".join(
        _shown(name) + ("" if number == total else f" ({number:,} of {total:,} rows)")
        for name, number in unused.items()
    )
    hint = ""
    lost = [name for name in unused if name in (*_INPUTS, *_SYSTEMS, "history", "tools")]
    names = (*_PROMPTS, "instruction")
    if lost and columns and columns.prompt in names and columns.response in _RESPONSES:
        hint = f"; data.columns=null reads {', '.join(lost)}"
    return f"{read}; columns not used: {named}{hint}", True


def learnt(
    dialogue: Dialogue, written: Collection[str]
) -> tuple[list[dict[str, object]], list[bool]]:
    """The messages with the fields that the chat format writes, and of each assistant's whether it is learnt."""
    keep = {"role", "content", *written}
    messages = [{k: v for k, v in turn.items() if k in keep} for turn in dialogue.messages]
    answers = [turn for turn in dialogue.messages if turn["role"] == "assistant"]
    return messages, [turn.get("learn") is not False for turn in answers]


def _unwritten(turn: dict[str, object], written: Collection[str]) -> list[str]:
    return [name for name in turn if name not in ("role", "content", "learn", *written)]


def _shown(name: str) -> str:
    return one_line(name, longest=60)


def _recognised(row: Row, form: Format) -> tuple[str, list[str]]:
    """The form of a row and its columns; columns that hold nothing count only if there is no other way."""
    for names in ([n for n, held in row.columns.items() if held is not None], list(row.columns)):
        found = {
            kind: columns
            for kind, columns in (
                ("messages", _turn_columns(row, names)),
                ("alpaca", _alpaca_columns(names)),
                ("prompt_response", _pair_columns(row, names, is_asked=form == "prompt_response")),
            )
            if columns and form in ("auto", kind)
        }
        if len(found) > 1:
            ways = " or ".join(f"data.format={kind}" for kind in found)
            raise DataError(f"{row.source}: can be read in {len(found)} ways; set {ways}")
        for kind, columns in found.items():
            return kind, columns
    raise DataError(f"{row.source}: expected {_EXPECTED[form]}; {_way(row, 'data.format=auto')}")


_EXPECTED = {
    "auto": "turns in 'messages', or text in 'prompt' and 'response'",
    "messages": f"a list of turns in one of {', '.join(_TURNS)}",
    "prompt_response": "text in 'prompt' and 'response'",
    "alpaca": "text in 'instruction' and 'output'",
}


def _turn_columns(row: Row, names: Sequence[str]) -> list[str]:
    """The column of turns; ``messages`` whatever it holds, others if they hold turns."""

    def holds_turns(name: str) -> bool:
        held = row.columns[name]
        kinds = {type(turn) for turn in held} if isinstance(held, list) else set[type]()
        if name == "data":
            return kinds == {str} and len(held) > 1
        return kinds == {dict} or isinstance(held, dict) or (kinds == {str} and len(held) > 1)

    found = [name for name in _TURNS if name in names and (name == "messages" or holds_turns(name))]
    if len(found) > 1:
        raise DataError(
            f"{row.source}: turns in {' and in '.join(map(repr, found))}; set"
            f" {' or '.join(f'data.columns.messages={name}' for name in found)}"
        )
    return found


def _alpaca_columns(names: Sequence[str]) -> list[str]:
    response = [name for name in ("output", "response") if name in names]
    if "instruction" not in names or not response:
        return []
    given = [
        name for name in (*_INPUTS[: 1 if "input" in names else 2], "history") if name in names
    ]
    return ["instruction", response[0], *given]


def _pair_columns(row: Row, names: Sequence[str], *, is_asked: bool) -> list[str]:
    if {"prompt", "response"} <= set(names):
        return ["prompt", "response", *(["history"] if "history" in names else [])]
    asked = [name for name in _PROMPTS if name in names]
    said = [name for name in _RESPONSES if name in names]
    if not asked or not said:
        return []
    if len(asked) > 1 or len(said) > 1:
        # Beside an instruction or turns, they are theirs.
        if not is_asked and ("instruction" in names or "messages" in names):
            return []
        raise DataError(
            f"{row.source}: can be read in several ways, a prompt from {' or '.join(asked)} and a response from"
            f" {' or '.join(said)}; set data.columns.prompt and data.columns.response"
        )
    return [asked[0], said[0], *(["history"] if "history" in names else [])]


def _way(row: Row, standard: str) -> str:
    """The columns there are, and the setting that reads them; ``standard`` where they have our own names."""
    held, way = row.columns, "data.columns"
    names = one_line(", ".join(map(repr, held)), longest=200) or "none"
    chosen = held.get("chosen")
    texts = [name for name, value in held.items() if isinstance(value, str)]
    if "messages" in held or {"prompt", "response"} <= held.keys():
        way = standard
    elif "rejected" in held and isinstance(chosen, list) and len(chosen) > 1:
        way = "data.columns.messages=chosen to learn the preferred conversation"
    elif "rejected" in held and "prompt" in held and chosen is not None:
        way = "data.columns.response=chosen to learn the preferred answer"
    elif len(texts) == 2 and all(
        n.isidentifier() and n not in (*_SYSTEMS, "chosen") for n in texts
    ):
        way = f"data.columns.prompt={texts[0]} and data.columns.response={texts[1]}, or the other way round"
    return f"the columns are {names}; set {way}"


def _turns(row: Row, column: str) -> list[dict[str, object]]:
    where = f"{row.source}: {one_line(column)}"
    return read_messages(row.columns[column], where=where)


def _pair(row: Row, used: list[str]) -> list[dict[str, object]]:
    """The turns of two columns and what belongs to them; columns that say nothing are taken out of ``used``."""
    held = row.columns
    for column in used[2:]:
        if is_empty(held[column]):
            used.remove(column)
    messages = _history(row) if "history" in used else []
    prompt, response = held[used[0]], held[used[1]]
    if isinstance(prompt, list | dict):
        asked = _turns(row, used[0])
        # TRL learns the completion alone.
        messages += [t | {"learn": False} if t["role"] == "assistant" else t for t in asked]
    else:
        given = [held[column] for column in used[2:] if column in _INPUTS]
        parts = [prompt, *given] if prompt != "" else given
        joined = "\n".join(parts) if all(isinstance(part, str) for part in parts) else parts
        messages.append({"role": "user", "content": joined if given else prompt})
    if isinstance(response, dict):
        response = [response]
    if isinstance(response, list):
        answered = read_messages(response, where=f"{row.source}: {one_line(used[1])}")
        if answered and answered[0]["role"] in ("user", "system"):
            raise DataError(
                f"{row.source}: {used[1]!r} holds a whole conversation, not an answer to {used[0]!r}; set"
                f" data.columns.messages={used[1]}"
            )
        return [*messages, *answered]
    return [*messages, {"role": "assistant", "content": response}]


def _history(row: Row) -> list[dict[str, object]]:
    """LLaMA-Factory's earlier turns: pairs of texts, or turns."""
    history = row.columns["history"]
    pairs: list[Any] = history if isinstance(history, list) else []
    if pairs and all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        roles = ("user", "assistant")
        return [{"role": roles[n], "content": pair[n]} for pair in pairs for n in (0, 1)]
    return _turns(row, "history")


def _add_system(row: Row, messages: list[dict[str, object]], used: list[str]) -> None:
    """A column's system message, unless the conversation brings another."""
    for column in _SYSTEMS:
        text = row.columns.get(column)
        if not isinstance(text, str) or not text.strip():
            continue
        if messages and messages[0]["role"] == "system":
            if messages[0]["content"] != text:
                continue
        else:
            messages.insert(0, {"role": "system", "content": text})
        used.append(column)


def _mark_learnt(row: Row, messages: list[dict[str, object]], used: list[str]) -> None:
    """Fields that say what is learnt become ``learn: False`` of the assistant's turns that are not."""
    is_row_learnt = True
    for column in _TOKEN_MASKS:
        if isinstance(row.columns.get(column), list):
            raise DataError(
                f"{row.source}: {column!r} marks single tokens of another tokenizer, which cannot be followed; remove"
                " the column or mark whole turns with weight: 0"
            )
    for column in _ROW_LEARN:
        value = row.columns.get(column)
        said = _truth(value)
        is_kto = column in ("label", "kto_tag")
        if column in used or said is None or (is_kto and not isinstance(value, bool)):
            continue
        used.append(column)
        is_row_learnt &= said
    for index, message in enumerate(messages):
        is_learnt = is_row_learnt
        for name in [name for name in message if name in (*_LEARN, *_NOT_LEARN)]:
            said = _truth(message[name])
            if said is None or (name in _NOT_LEARN and not isinstance(message[name], bool)):
                raise DataError(
                    f"{row.source}: turn {index}: expected {name} to be"
                    f" {'true or false' if name in _NOT_LEARN else '0 or 1'}, got"
                    f" {one_line(repr(message[name]), longest=40)}; a turn is learnt or it is not"
                )
            said = said != (name in _NOT_LEARN)
            is_learnt &= said
            held = message.pop(name)
            if said and message["role"] != "assistant":
                message[f"{name} of a {message['role']}'s turn"] = held
        if not is_learnt and message["role"] == "assistant":
            message["learn"] = False


def _truth(value: object) -> bool | None:
    if isinstance(value, str):
        return _TRUTH.get(value.strip().lower())
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None
