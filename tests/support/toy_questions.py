"""Two-turn questions in the toy language's words, and a random model that can read them."""

from slackdlm.models.configs import LLaDAConfig
from slackdlm.models.loaded import LoadedModel
from slackdlm.models.loading import new_model
from slackdlm.models.tokenizer import train_tokenizer
from slackdlm.records import Question
from slackdlm.study.toy_language import vocabulary, write_tasks


def toy_model(*, seed: int = 3) -> LoadedModel:
    """A random toy LLaDA over the toy language's words."""
    tokenizer = train_tokenizer([" ".join(vocabulary())], vocab_size=256, kind="word")
    config = LLaDAConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        n_layers=1,
        n_heads=2,
        mlp_hidden_size=32,
        max_sequence_length=128,
    )
    return new_model(config, tokenizer, generator_seed=seed)


def toy_questions(count: int) -> list[Question]:
    """Every second one has two turns."""
    prompts = [task.prompt for task in write_tasks(2 * count, seed=5)]
    return [
        Question(
            id=f"q{row}",
            category="toy",
            messages=({"role": "user", "content": prompts[2 * row]},),
            later_turns=(prompts[2 * row + 1],) if row % 2 else (),
        )
        for row in range(count)
    ]
