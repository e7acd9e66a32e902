import pytest
import torch

from slackdlm.sampling.cache import KeyValueCache


@pytest.fixture
def ids(toy):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, toy.model.config.vocab_size, (2, 12), generator=generator)


@pytest.mark.parametrize("part", [slice(4, 8), slice(4, 12), slice(0, 5), slice(11, 12)])
@pytest.mark.parametrize("padded", [False, True])
@torch.inference_mode()
def test_a_part_of_an_unchanged_sequence_comes_out_as_in_the_full_pass(toy, ids, part, padded):
    mask = torch.ones_like(ids)
    mask[1, :3] = int(not padded)
    cache = KeyValueCache(12)
    full = toy.model(ids, mask, logits=False, store=cache).last_hidden_state
    torch.testing.assert_close(full, toy.model(ids, mask, logits=False).last_hidden_state)
    cache.first = part.start
    again = toy.model(ids[:, part], mask, logits=False, store=cache).last_hidden_state
    torch.testing.assert_close(again, full[:, part], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_part_attends_to_itself_as_it_is_and_to_the_rest_as_it_was(toy, ids):
    """In a one-layer model the rest's keys do not depend on the part: the cached pass is exact."""
    import copy

    model = copy.deepcopy(toy.model)
    del model.model.transformer["blocks"][1:]
    cache = KeyValueCache(12)
    model(ids, logits=False, store=cache)
    changed = ids.clone()
    changed[:, 4:8] = (ids[:, 4:8] + 1) % 40
    cache.first = 4
    part = model(changed[:, 4:8], logits=False, store=cache).last_hidden_state
    full = model(changed, logits=False).last_hidden_state
    torch.testing.assert_close(part, full[:, 4:8], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(part, model(ids, logits=False).last_hidden_state[:, 4:8], atol=1e-3)


@torch.inference_mode()
def test_a_full_pass_replaces_everything(toy, ids):
    cache = KeyValueCache(12)
    toy.model(ids, logits=False, store=cache)
    other = ids.flip(1)
    cache.first = 0
    full = toy.model(other, logits=False, store=cache).last_hidden_state
    cache.first = 6
    again = toy.model(other[:, 6:], logits=False, store=cache).last_hidden_state
    torch.testing.assert_close(again, full[:, 6:], rtol=1e-5, atol=1e-5)


def test_a_prepared_mask_is_used_as_it_is(toy, ids):
    from slackdlm.models.llada import attention_bias

    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    prepared = attention_bias(mask)
    assert attention_bias(prepared) is prepared
    torch.testing.assert_close(
        toy.model(ids, prepared).logits, toy.model(ids, mask).logits, rtol=0, atol=0
    )
