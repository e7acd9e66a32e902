"""Batch-mates change nothing: rows decoded together and each by itself."""

from collections.abc import Sequence

from slackdlm.models.loaded import LoadedModel
from slackdlm.sampling.decoding import Generation
from slackdlm.sampling.intervention import ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig


def decode_as_alone(
    loaded: LoadedModel,
    config: SamplerConfig,
    prompts: Sequence[str],
    intervention: ShiftIntervention | None = None,
) -> list[Generation]:
    """The generations, once each is found to be that of its row alone."""
    sampler = Sampler(loaded, config, intervention)
    together = sampler.generate(prompts)
    for row, prompt in enumerate(prompts):
        (alone,) = sampler.generate([prompt], row_ids=[row])
        for name in ("canvas", "dose", "num_forwards"):
            assert getattr(together[row], name) == getattr(alone, name), (row, name)
    return together
