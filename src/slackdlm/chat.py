"""A conversation in the terminal, with the canvas resolving as it is decoded."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar, get_args

from rich.console import Console
from rich.live import Live
from rich.text import Text

from slackdlm.errors import ConfigError, DataError, SlackDLMError
from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.config import InterventionConfig, InterventionKind
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.recipe import DecodingRecipe, intervention_of
from slackdlm.sampling.sampler import Generation, Sampler, SamplerConfig
from slackdlm.terminal import printable

T = TypeVar("T")
HELP = """\
/steps N            denoising steps; /steps all: one per position
/canvas N           positions of the response canvas
/block N            positions per block; /block all: the whole canvas
/temperature X      0 is greedy
/delay-slack on     cells that propose <slack> come last; off: like others
/delay-end on       cells that propose an end come last; off: like others
/shift RATE [KIND]  disturb the decoding; /shift 0 stops it; kinds: shift (used
                    if none is named), swap, substitute, drop
/seed N             the next answers' noise
/settings           what is set
/reset              forget the conversation
/quit               leave (or Ctrl-D); Ctrl-C stops an answer"""

_UNDISTURBED = InterventionConfig(kind="shift", rate=0.0)


@dataclass(frozen=True)
class ChatSettings:
    """What ``/commands`` change."""

    sampler: SamplerConfig
    asked: InterventionConfig = _UNDISTURBED
    """How answers are disturbed; at a rate of 0 they are not."""

    @staticmethod
    def of(recipe: DecodingRecipe) -> "ChatSettings":
        """What a chat begins with."""
        return ChatSettings(recipe.sampler, recipe.intervention or _UNDISTURBED)

    @property
    def intervention(self) -> ShiftIntervention | None:
        """The intervention these settings ask for.

        Raises:
            ConfigError: If the rate is wrong.
        """
        return None if self.asked.rate == 0 else intervention_of(self.asked, seed=self.sampler.seed)


@dataclass
class Conversation:
    """The turns so far, and where they are held."""

    loaded: LoadedModel
    settings: ChatSettings
    messages: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def answer(
        self, text: str, *, on_step: Callable[[Sequence[int]], None] | None = None
    ) -> Generation:
        """The model's next turn; the conversation grows by both turns only when it is complete.

        Args:
            text: The user's turn.
            on_step: Called with the canvas of ``L`` ids after every step.

        Raises:
            DataError: If the conversation does not fit into the model's length any more.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        sampler = Sampler(self.loaded, self.settings.sampler, self.settings.intervention)
        (generation,) = sampler.generate(
            [asked],
            row_ids=[len(asked)],  # another turn, other noise
            on_step=None if on_step is None else lambda canvas: on_step(canvas[0].tolist()),
        )
        self.messages = [*asked, {"role": "assistant", "content": generation.text}]
        return generation


def apply_command(line: str, settings: ChatSettings) -> ChatSettings:
    """The settings after one ``/command`` that changes them.

    Raises:
        ConfigError: If the command is unknown or its value is; nothing has changed then.
    """
    name, *values = line.split()
    if name == "/shift" and len(values) in (1, 2):
        rate, kind = _number(float)(values[0]), _kind(*values[1:])
        changed = replace(settings, asked=replace(settings.asked, rate=rate, kind=kind))
        _ = changed.intervention  # refuses a rate out of range
        return changed
    if name in _CHANGES and len(values) == 1:
        key, read = _CHANGES[name]
        return replace(settings, sampler=replace(settings.sampler, **{key: read(values[0])}))
    raise ConfigError(f"{line}: not a command with its value; /help shows them all")


def _number(kind: Callable[[str], T]) -> Callable[[str], T]:
    def read(text: str) -> T:
        try:
            return kind(text)
        except ValueError as error:
            raise ConfigError(f"expected a number, got {text!r}") from error

    return read


def _kind(text: str = "shift") -> InterventionKind:
    for kind in get_args(InterventionKind):
        if text == kind:
            return kind
    raise ConfigError(f"unknown kind {text!r}; use {', '.join(get_args(InterventionKind))}")


def _whole_or_all(text: str) -> int | None:
    return None if text == "all" else _number(int)(text)


def _on_or_off(text: str) -> bool:
    if text not in ("on", "off"):
        raise ConfigError(f"expected on or off, got {text!r}")
    return text == "on"


_CHANGES: dict[str, tuple[str, Callable[[str], object]]] = {
    "/steps": ("steps", _whole_or_all),
    "/canvas": ("canvas_length", _number(int)),
    "/block": ("block_length", _whole_or_all),
    "/temperature": ("temperature", _number(float)),
    "/delay-slack": ("delay_slack", _on_or_off),
    "/delay-end": ("delay_end", _on_or_off),
    "/seed": ("seed", _number(int)),
}
"""Command -> field of SamplerConfig, and how its value is read."""


def described(settings: ChatSettings) -> str:
    """What is set, as the commands that would set it."""
    sampler = settings.sampler
    return "\n".join(
        (
            f"/steps {sampler.steps or 'all'}",
            f"/canvas {sampler.canvas_length}",
            f"/block {sampler.block_length or 'all'}",
            f"/temperature {sampler.temperature:g}",
            f"/delay-slack {'on' if sampler.delay_slack else 'off'}",
            f"/delay-end {'on' if sampler.delay_end else 'off'}",
            f"/shift {settings.asked.rate:g} {settings.asked.kind}",
            f"/seed {sampler.seed}",
        )
    )


def unchangeable(settings: ChatSettings) -> str:
    """What flags or a recipe set and no command changes, in one line; empty if all that is the default."""
    keys = {key for key, _ in _CHANGES.values()}
    given, default = asdict(settings.sampler), asdict(SamplerConfig(canvas_length=1))
    values = {key: value for key, value in given.items() if key not in keys | {"batch_size"}}
    for name in ("direction", "when"):
        values[name], default[name] = getattr(settings.asked, name), getattr(_UNDISTURBED, name)
    return ", ".join(f"{key} {value}" for key, value in values.items() if value != default[key])


def drawn_canvas(loaded: LoadedModel, canvas: Sequence[int], before: Sequence[int]) -> Text:
    """The canvas as a terminal shows it: masks as dots, slack faint, what this step wrote bright."""
    drawn = Text()
    for token, old in zip(canvas, before, strict=True):
        if token == loaded.mask_id:
            drawn.append("·", style="dim")
        elif token == loaded.slack_id:
            drawn.append("␣", style="bold yellow" if token != old else "dim yellow")
        elif token in loaded.eos_ids:
            drawn.append("¶", style="bold blue" if token != old else "dim blue")
        else:
            piece = printable(str(loaded.tokenizer.decode([token])))
            piece.stylize("bold green" if token != old else "")
            drawn.append_text(piece if drawn.plain[-1:] in ("", " ", "\n") else Text(" ") + piece)
    return drawn


def chat(conversation: Conversation, console: Console, read: Callable[[], str]) -> None:
    """Talk until ``/quit`` or the end of input; errors are shown and the conversation goes on.

    Args:
        conversation: Model, settings and earlier turns.
        console: Where it is shown.
        read: Gives the user's next line; raises ``EOFError`` at the end of input.
    """
    console.print(Text("/help shows the commands", style="dim"))
    while True:
        try:
            line = read()
        except (EOFError, KeyboardInterrupt):
            return
        if line.strip() == "/quit":
            return
        try:
            if line.lstrip().startswith("/"):
                _command(line.strip(), conversation, console)
            elif line.strip():
                _turn(line, conversation, console)
        except SlackDLMError as error:
            console.print(Text("error: ", style="bold red") + printable(str(error)))
            if isinstance(error, DataError) and conversation.messages:
                console.print(Text("/reset forgets the earlier turns and makes room", style="dim"))
        except KeyboardInterrupt:
            console.print(Text("stopped; this turn is forgotten", style="dim"))


def _command(line: str, conversation: Conversation, console: Console) -> None:
    if line == "/help":
        console.print(Text(HELP))
    elif line == "/settings":
        console.print(Text(described(conversation.settings)))
        others = unchangeable(conversation.settings)
        if others:
            console.print(Text(f"set at the start: {others}"))
    elif line == "/reset":
        conversation.messages = []
        console.print(Text("the conversation is forgotten", style="dim"))
    else:
        conversation.settings = apply_command(line, conversation.settings)
        name = line.split()[0]
        now = [x for x in described(conversation.settings).splitlines() if x.split()[0] == name]
        console.print(Text(f"{now[0]} from the next answer on", style="dim"))


def _turn(line: str, conversation: Conversation, console: Console) -> None:
    loaded = conversation.loaded
    before = [loaded.mask_id] * conversation.settings.sampler.canvas_length

    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(canvas: Sequence[int]) -> None:
            nonlocal before
            live.update(drawn_canvas(loaded, canvas, before), refresh=True)
            before = list(canvas)

        generation = conversation.answer(line, on_step=show)
    console.print(printable(generation.text), soft_wrap=True)
    disturbed = (
        f", {generation.num_displaced} displaced" if conversation.settings.asked.rate else ""
    )
    counted = f"{len(generation.tokens)} tokens in {generation.num_forwards} forwards{disturbed}"
    console.print(Text(counted, style="dim"))
