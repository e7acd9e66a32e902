from collections.abc import Callable
from dataclasses import replace

from arms import CANVAS_LENGTH, SLACK_CTC
from transformers import PreTrainedTokenizerFast

from slackdlm.models.loaded import LoadedModel
from slackdlm.training.data import Sample
from slackdlm.training.draw import canvas_spec
from slackdlm.training.preview import preview
from slackdlm.training.stream import TrainStream


def test_a_preview_says_what_the_model_sees_and_what_stands_under_the_masks(
    new_loaded: Callable[[], LoadedModel],
    tokenizer: PreTrainedTokenizerFast,
    samples: list[Sample],
) -> None:
    objective = replace(SLACK_CTC, slack_ratio=(0.5, 0.5))
    spec = canvas_spec(new_loaded(), canvas_length=CANVAS_LENGTH, objective=objective)
    stream = TrainStream(samples, spec, num_steps=4, batch_size=8, seed=0, data_seed=0)
    kinds: set[str] = set()
    for n in range(32):
        draw = stream[n]
        shown = preview(draw, spec, tokenizer, source="mine.jsonl:3")
        content = draw.noisy[: draw.ctc_length].tolist()
        masks = sum(piece.text.count("▒") for piece in shown.seen)
        assert masks == content.count(spec.mask_id)
        assert shown.seen[0].kind == "prompt"
        dots = sum(piece.text.count("·") for piece in shown.hidden)
        assert dots == draw.clean.tolist().count(spec.slack_id)
        words = " ".join(p.text for p in shown.hidden if p.kind in ("visible", "masked"))
        assert words.replace("·", " ").split() == shown.target.split()
        padding = CANVAS_LENGTH - draw.ctc_length
        assert f"+ slack {dots} + padding {padding};" in shown.title
        assert shown.title.startswith("mine.jsonl:3: prompt ")
        kinds |= {piece.kind for piece in [*shown.seen, *shown.hidden]}
    assert kinds == {"prompt", "visible", "masked", "slack", "padding"}
