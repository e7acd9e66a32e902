"""A conversation in the terminal, with the canvas resolving as it is decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.text import Text

from slackdlm.config import apply_overrides, asdict, build, flatten
from slackdlm.errors import ConfigError, DataError, SlackDLMError
from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.recipe import DecodingRecipe
from slackdlm.sampling.sampler import Generation, Sampler, SamplerConfig
from slackdlm.terminal import printable

HELP = """\
/steps N            denoising steps; /steps all: one per position
/canvas N           positions of the response canvas
/block N            positions per block; /block all: the whole canvas
/temperature X      0 is greedy
/delay-slack on     cells that propose <slack> come last; off: like others
/delay-end on       cells that propose an end come last; off: like others
/shift RATE [KIND]  displace tokens; /shift 0 stops it; kinds: shift (used if
                    none is named), swap, substitute, drop
/seed N             the next answers' noise
/set KEY=VALUE ...  any other setting, e.g. sampler.guidance=2
/settings           what is set
/reset              forget the conversation
/quit               leave (or Ctrl-D); Ctrl-C stops an answer"""

_KEYS = {
    "/steps": "sampler.steps",
    "/canvas": "sampler.canvas_length",
    "/block": "sampler.block_length",
    "/temperature": "sampler.temperature",
    "/delay-slack": "sampler.delay_slack",
    "/delay-end": "sampler.delay_end",
    "/seed": "sampler.seed",
}
"""Commands that are another name of ``/set KEY=VALUE``."""


@dataclass
class Conversation:
    """The turns so far, and how the next one is decoded."""

    loaded: LoadedModel
    recipe: DecodingRecipe
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
        messages = [*self.messages, {"role": "user", "content": text}]
        shift = self.recipe.shift if _rate(self.recipe) else None
        (generation,) = Sampler(self.loaded, self.recipe.sampler, shift).generate(
            [messages],
            row_ids=[len(messages)],  # another turn, other noise
            on_step=None if on_step is None else lambda canvas: on_step(canvas[0].tolist()),
        )
        self.messages = [*messages, {"role": "assistant", "content": generation.text}]
        return generation


def _rate(recipe: DecodingRecipe) -> float:
    return 0.0 if recipe.intervention is None else recipe.intervention.rate


def apply_command(line: str, recipe: DecodingRecipe) -> DecodingRecipe:
    """The recipe after one ``/command`` that changes it.

    Raises:
        ConfigError: If the command is unknown or its value is wrong.
    """
    name, *values = line.split()
    if name == "/shift" and len(values) in (1, 2):
        rate, kind = [*values, "shift"][:2]
        overrides = [f"intervention.rate={rate}", f"intervention.kind={kind}"]
    elif name in _KEYS and len(values) == 1:
        overrides = [f"{_KEYS[name]}={'null' if values == ['all'] else values[0]}"]
    elif name == "/set" and values:
        overrides = values
    else:
        raise ConfigError(f"{line}: not a command with its value; /help shows them all")
    blocks = asdict(recipe)
    apply_overrides(blocks, overrides, DecodingRecipe)
    return build(DecodingRecipe, blocks)


def described(recipe: DecodingRecipe) -> str:
    """What is set, as the commands that would set it; with ``/set`` only what is not at its default."""
    values = flatten(asdict(recipe))
    lines = [f"{name} {_written(values[key])}" for name, key in _KEYS.items()]
    kind = values.get("intervention.kind", "shift")
    lines.insert(-1, f"/shift {_rate(recipe):g} {kind}")
    defaults = flatten({"sampler": asdict(SamplerConfig(canvas_length=1))})
    defaults |= {"intervention.direction": "both", "intervention.when": "always"}
    named = (*_KEYS.values(), "intervention", "intervention.rate", "intervention.kind")
    others = [
        f"{key}={_written(value)}"
        for key, value in values.items()
        if key not in (*named, "sampler.batch_size") and value != defaults[key]
    ]
    return "\n".join([*lines, *([f"/set {' '.join(others)}"] if others else [])])


def _written(value: object) -> str:
    """A setting as ``apply_command`` reads it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    return "all" if value is None else str(value)


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
        conversation: Model, recipe and earlier turns.
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
        console.print(Text(described(conversation.recipe)))
    elif line == "/reset":
        conversation.messages = []
        console.print(Text("the conversation is forgotten", style="dim"))
    else:
        conversation.recipe = apply_command(line, conversation.recipe)
        name = line.split()[0]
        changed = [x for x in described(conversation.recipe).splitlines() if x.split()[0] == name]
        console.print(Text(f"{(changed or [line])[0]} from the next answer on", style="dim"))


def _turn(line: str, conversation: Conversation, console: Console) -> None:
    loaded = conversation.loaded
    before = [loaded.mask_id] * conversation.recipe.sampler.canvas_length

    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(canvas: Sequence[int]) -> None:
            nonlocal before
            live.update(drawn_canvas(loaded, canvas, before), refresh=True)
            before = list(canvas)

        generation = conversation.answer(line, on_step=show)
    console.print(printable(generation.text), soft_wrap=True)
    displaced = f", {generation.num_displaced} displaced" if _rate(conversation.recipe) else ""
    counted = f"{len(generation.tokens)} tokens in {generation.num_forwards} forwards{displaced}"
    console.print(Text(counted, style="dim"))
