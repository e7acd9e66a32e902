import io
from collections.abc import Iterable

import pytest
from rich.console import Console

from slackdlm.chat import (
    HELP,
    ChatSettings,
    Conversation,
    apply_command,
    chat,
    described,
    drawn_canvas,
)
from slackdlm.errors import ConfigError
from slackdlm.sampling.recipe import DecodingRecipe, InterventionConfig
from slackdlm.sampling.sampler import SamplerConfig
from slackdlm.study.toy_language import write_tasks

SETTINGS = ChatSettings(SamplerConfig(canvas_length=8, steps=4))
PROMPTS = [task.prompt for task in write_tasks(2, seed=5)]


def talk(toy, lines: Iterable[str], settings: ChatSettings = SETTINGS) -> tuple[Conversation, str]:
    waiting = iter(lines)

    def read() -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    shown = io.StringIO()
    conversation = Conversation(toy, settings)
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
        ("/block all", "block_length", None),
        ("/temperature 0.5", "temperature", 0.5),
        ("/delay-slack on", "delay_slack", True),
        ("/delay-slack off", "delay_slack", False),
        ("/delay-end on", "delay_end", True),
        ("/seed 3", "seed", 3),
    ],
)
def test_commands_change_one_setting(line: str, key: str, value: object):
    changed = apply_command(line, SETTINGS)
    assert getattr(changed.sampler, key) == value
    assert changed.asked == SETTINGS.asked


def test_shift_takes_a_rate_and_a_kind():
    assert apply_command("/shift 0.05", SETTINGS).intervention.kind == "shift"
    assert apply_command("/shift 0.05 drop", SETTINGS).intervention.kind == "drop"
    assert apply_command("/shift 0", apply_command("/shift 0.05", SETTINGS)).intervention is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/steps", "not a command with its value"),
        ("/stpes 3", "not a command with its value"),
        ("/steps x", "expected a number, got 'x'"),
        ("/delay-slack yes", "expected on or off, got 'yes'"),
        ("/seed -1", "seed: expected at least 0, got -1"),
        ("/shift x", "expected a number, got 'x'"),
        ("/steps 0", "steps: expected at least 1, got 0"),
        ("/temperature -1", "temperature: expected at least 0"),
        ("/canvas 0", "canvas_length"),
        ("/block 9", "block_length: expected at most"),
        ("/shift 2", "rate: expected at most 1"),
        ("/shift 0.1 jump", "unknown kind 'jump'"),
        ("/steps 3 4", "not a command with its value"),
    ],
)
def test_a_wrong_command_is_shown_and_changes_nothing(toy, line: str, message: str):
    with pytest.raises(ConfigError, match=message):
        apply_command(line, SETTINGS)
    conversation, shown = talk(toy, [line])
    assert conversation.settings == SETTINGS
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
    Conversation(toy, SETTINGS).answer(
        PROMPTS[0], on_step=lambda canvas: seen.append(list(canvas).count(toy.mask_id))
    )
    assert seen == [6, 4, 2, 0]


def test_settings_are_shown_as_the_commands_that_set_them(toy):
    given = ["/steps 3", "/canvas 12", "/block 6", "/temperature 0.5", "/delay-slack on"]
    given += ["/delay-end on", "/shift 0.1 drop", "/seed 4"]
    conversation, _ = talk(toy, given)
    assert described(conversation.settings).splitlines() == given
    assert talk(toy, described(conversation.settings).splitlines())[0] == conversation
    assert "/steps all" in described(apply_command("/steps all", SETTINGS))


@pytest.mark.parametrize(
    ("line", "shown"),
    [("/steps all", "/steps all"), ("/shift 0.25", "/shift 0.25 shift"), ("/seed 7", "/seed 7")],
)
def test_a_changed_setting_is_said_back(toy, line, shown):
    assert f"{shown} from the next answer on" in talk(toy, [line])[1]


def test_settings_that_no_command_changes_are_shown_with_the_others(toy):
    assert "set at the start" not in talk(toy, ["/settings"])[1]
    sampler = SamplerConfig(canvas_length=8, remasking="threshold", bound=0.9)
    asked = InterventionConfig(kind="swap", rate=0.5, direction="left")
    settings = ChatSettings.of(DecodingRecipe(sampler=sampler, intervention=asked))
    assert settings.intervention is not None
    assert settings.intervention.direction == "left"
    _, shown = talk(toy, ["/settings"], settings)
    assert "/shift 0.5 swap" in shown
    assert "set at the start: remasking threshold, bound 0.9, direction left" in shown


def test_a_conversation_that_is_too_long_is_told_how_to_go_on(toy):
    settings = ChatSettings(SamplerConfig(canvas_length=60, steps=2))
    conversation, shown = talk(toy, [PROMPTS[0]] * 8, settings)
    assert "error: " in shown
    assert "/reset forgets the earlier turns and makes room" in shown
    assert conversation.messages
    _, alone = talk(toy, ["notaword"])
    assert "error: " in alone
    assert "/reset" not in alone


def test_no_line_of_the_help_breaks_on_a_terminal_of_80_columns():
    assert max(len(line) for line in HELP.splitlines()) <= 79
