import io
import re
from collections.abc import Iterable
from dataclasses import replace

import pytest
from rich.console import Console

from slackdlm.chat import HELP, Conversation, apply_command, chat, described, drawn_canvas
from slackdlm.errors import ConfigError
from slackdlm.sampling.recipe import DecodingRecipe, InterventionConfig
from slackdlm.sampling.sampler import SamplerConfig
from slackdlm.study.toy_language import write_tasks

RECIPE = DecodingRecipe(sampler=SamplerConfig(canvas_length=8, steps=4))
PROMPTS = [task.prompt for task in write_tasks(2, seed=5)]


def talk(toy, lines: Iterable[str], recipe: DecodingRecipe = RECIPE) -> tuple[Conversation, str]:
    waiting = iter(lines)

    def read() -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    shown = io.StringIO()
    conversation = Conversation(toy, recipe)
    chat(conversation, Console(file=shown, width=100), read)
    return conversation, shown.getvalue()


def test_the_second_turn_sees_the_first(toy):
    conversation, _ = talk(toy, PROMPTS)
    roles = [message["role"] for message in conversation.messages]
    assert roles == ["user", "assistant", "user", "assistant"]
    alone, _ = talk(toy, PROMPTS[1:])
    forgotten, shown = talk(toy, [PROMPTS[0], "/reset", PROMPTS[1]])
    assert alone.messages == forgotten.messages
    assert "the conversation is forgotten" in shown


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("/steps 2", "steps", 2),
        ("/steps all", "steps", None),
        ("/canvas 16", "canvas_length", 16),
        ("/block 4", "block_length", 4),
        ("/temperature 0.5", "temperature", 0.5),
        ("/delay-slack on", "delay_slack", True),
        ("/delay-end off", "delay_end", False),
        ("/seed 3", "seed", 3),
        ("/set sampler.guidance=2", "guidance", 2.0),
    ],
)
def test_commands_change_one_setting(line: str, key: str, value: object):
    assert apply_command(line, RECIPE) == replace(
        RECIPE, sampler=replace(RECIPE.sampler, **{key: value})
    )


def test_shift_takes_a_rate_and_a_kind_and_keeps_the_rest():
    assert apply_command("/shift 0.05", RECIPE).shift.kind == "shift"
    left = InterventionConfig(kind="swap", rate=0.5, direction="left")
    changed = apply_command("/shift 0.05 drop", replace(RECIPE, intervention=left))
    assert changed.intervention == replace(left, kind="drop", rate=0.05)


def test_a_rate_of_0_decodes_as_without_an_intervention(toy):
    assert (
        talk(toy, ["/shift 0.5", "/shift 0", *PROMPTS])[0].messages
        == talk(toy, PROMPTS)[0].messages
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/steps", "not a command with its value"),
        ("/stpes 3", "not a command with its value"),
        ("/steps 3 4", "not a command with its value"),
        ("/steps x", "steps: expected a whole number, got 'x'"),
        ("/delay-slack maybe", "delay_slack: expected true or false, got 'maybe'"),
        ("/block 9", "block_length: expected at most"),
        ("/shift 2", "rate: expected at most 1"),
        ("/shift 0.1 jump", "intervention.kind: expected one of"),
        ("/set sampler.stpes=3", "did you mean sampler.steps?"),
    ],
)
def test_a_wrong_command_is_shown_and_changes_nothing(toy, line: str, message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        apply_command(line, RECIPE)
    conversation, shown = talk(toy, [line])
    assert conversation.recipe == RECIPE
    assert message in " ".join(shown.split())


def test_a_turn_that_fails_is_forgotten_and_the_chat_goes_on(toy):
    conversation, shown = talk(toy, ["words it never saw", PROMPTS[0]])
    assert "not in the vocabulary" in shown
    assert [message["content"] for message in conversation.messages[:1]] == PROMPTS[:1]


def test_the_canvas_shows_masks_slack_ends_and_words(toy):
    wolf = toy.tokenizer.convert_tokens_to_ids("wolf")
    canvas = [toy.mask_id, toy.slack_id, toy.pad_id, wolf]
    drawn = drawn_canvas(toy, canvas, [toy.mask_id] * 4)
    assert drawn.plain == "·␣¶ wolf"


def test_every_step_is_shown(toy):
    seen: list[int] = []
    Conversation(toy, RECIPE).answer(
        PROMPTS[0], on_step=lambda canvas: seen.append(list(canvas).count(toy.mask_id))
    )
    assert seen == [6, 4, 2, 0]


def test_settings_are_shown_as_the_commands_that_set_them(toy):
    given = ["/steps 3", "/canvas 12", "/block 6", "/temperature 0.5", "/delay-slack on"]
    given += ["/delay-end on", "/shift 0.1 drop", "/seed 4"]
    given += ["/set sampler.guidance=2 sampler.early_stop=on intervention.direction=left"]
    conversation, _ = talk(toy, given)
    assert described(conversation.recipe).splitlines() == given
    _, shown = talk(toy, ["/settings", "/steps all"], conversation.recipe)
    assert all(line in shown for line in given)
    assert "/steps all from the next answer on" in shown


def test_a_conversation_that_is_too_long_is_told_how_to_go_on(toy):
    recipe = DecodingRecipe(sampler=SamplerConfig(canvas_length=60, steps=2))
    conversation, shown = talk(toy, [PROMPTS[0]] * 8, recipe)
    assert "error: " in shown
    assert "/reset forgets the earlier turns and makes room" in shown
    assert conversation.messages
    _, alone = talk(toy, ["notaword"])
    assert "error: " in alone
    assert "/reset" not in alone


def test_no_line_of_the_help_breaks_on_a_terminal_of_80_columns():
    assert max(len(line) for line in HELP.splitlines()) <= 79
