import numpy as np
import pytest
import torch
from decoded_alone import decode_as_alone
from hypothesis import given, settings
from hypothesis import strategies as st

from slackdlm.errors import ConfigError
from slackdlm.sampling.decoding import Decoding
from slackdlm.sampling.intervention import Dose, Proposal, ShiftIntervention
from slackdlm.sampling.sampler import Sampler, SamplerConfig

SLACK, PAD = 0, 1
EXEMPT = torch.tensor([SLACK, PAD])
CONTENT = torch.arange(2, 12)
OPEN = [1] * 5


def place(intervention, positions, tokens, free, uniforms, *, predicted=None):
    """Where a step's tokens go: cells written, dose, altered. ``uniforms`` are (ask, coin, pick) per token."""
    proposal = Proposal(
        torch.tensor([positions]),
        torch.tensor([tokens]),
        torch.ones(1, len(positions), dtype=torch.bool),
        torch.tensor([free], dtype=torch.bool),
        torch.tensor([predicted or [9] * len(free)]),
    )
    draws = torch.as_tensor(np.array([uniforms], dtype=np.float64))
    placed = intervention.place(proposal, draws, exempt_ids=EXEMPT, content_ids=CONTENT)
    cells = zip(placed.positions[0], placed.tokens[0], placed.written[0], strict=True)
    written = [(int(p), int(t)) for p, t, w in cells if w]
    return written, Dose(*placed.dose[0].tolist()), placed.altered[0].tolist()


LEFT, RIGHT, KEPT = (0.0, 0.0, 0.0), (0.0, 0.9, 0.0), (0.999, 0.0, 0.0)


@pytest.mark.parametrize(
    ("settings_", "positions", "tokens", "free", "uniforms", "written", "dose"),
    [
        # A token moves one place and leaves its own masked.
        ({}, [2], [5], OPEN, [LEFT], [(1, 5)], Dose(1, 1, 0, 0, 1)),
        ({}, [2], [5], OPEN, [RIGHT], [(3, 5)], Dose(1, 1, 0, 0, 1)),
        ({"direction": "left"}, [2], [5], OPEN, [RIGHT], [(1, 5)], Dose(1, 1, 0, 0, 1)),
        ({"direction": "right"}, [2], [5], OPEN, [LEFT], [(3, 5)], Dose(1, 1, 0, 0, 1)),
        # The only free neighbour is used; the ends of the canvas are never left.
        ({}, [2], [5], [1, 0, 1, 1, 1], [LEFT], [(3, 5)], Dose(1, 1, 0, 0, 1)),
        ({}, [0], [5], [1, 0, 0, 0, 0], [LEFT], [(0, 5)], Dose(1, 0, 1, 0, 1)),
        ({}, [4], [5], [0, 0, 0, 0, 1], [RIGHT], [(4, 5)], Dose(1, 0, 1, 0, 1)),
        # A token whose place was taken waits; one just committed is no free neighbour.
        ({}, [2, 1], [5, 6], OPEN, [LEFT, KEPT], [(1, 5)], Dose(1, 1, 0, 1, 1)),
        ({"direction": "left"}, [1, 2], [5, 6], OPEN, [KEPT, LEFT], [(1, 5), (2, 6)], Dose(1, 0, 1, 0, 2)),
        ({"kind": "drop"}, [2, 3], [5, 6], OPEN, [LEFT, KEPT], [(3, 6)], Dose(1, 1, 0, 0, 1)),
    ],
)  # fmt: skip
def test_tokens_go_where_the_rule_says(settings_, positions, tokens, free, uniforms, written, dose):
    intervention = ShiftIntervention(0.5, seed=0, **settings_)
    assert place(intervention, positions, tokens, free, uniforms)[:2] == (written, dose)


@pytest.mark.parametrize("kind", ["shift", "substitute", "drop", "swap"])
def test_slack_and_padding_are_neither_displaced_nor_counted(kind):
    intervention = ShiftIntervention(0.9, kind=kind, seed=0)
    written, dose, _ = place(intervention, [1, 3], [SLACK, PAD], OPEN, [LEFT, LEFT])
    assert written == [(1, SLACK), (3, PAD)]
    assert dose == Dose(0, 0, 0, 0, 0)


@pytest.mark.parametrize("token", [5, -1, 50])
def test_substitute_writes_another_content_token_in_place(token):
    substitute, seen = ShiftIntervention(0.5, kind="substitute", seed=0), set()
    for pick in np.linspace(0, 0.9999, 200):
        written, dose, altered = place(substitute, [2], [token], OPEN, [(0.0, 0.0, pick)])
        assert written[0][0] == 2
        seen.add(written[0][1])
        assert dose == Dose(asked=1, displaced=1, impossible=0, lost=0, committed=1)
        assert altered == [True]
    assert seen == set(CONTENT.tolist()) - {token}, "every other one and never the same"


def restated(intervention, places, free, predicted, uniforms):
    """The rules of shift and swap, one token at a time, in plain Python."""
    steps = {"left": [-1], "right": [1], "both": [-1, 1]}[intervention.direction]
    is_swap = intervention.kind == "swap"
    free, written, counts, taken = list(free), [], dict.fromkeys(Dose._fields, 0), set()
    for own, (ask, coin, _) in zip(places, uniforms, strict=True):
        token = predicted[own]
        content = token not in (SLACK, PAD)
        if not free[own]:
            counts["lost"] += content and own not in taken
            continue
        options = []
        if content and ask < intervention.rate:
            counts["asked"] += 1
            near = [own + step for step in steps if 0 <= own + step < len(free)]
            options = [
                q for q in near if free[q] and not (is_swap and predicted[q] in (SLACK, PAD))
            ]
            counts["impossible"] += not options
        target = own if not options else options[0] if coin < 0.5 else options[-1]
        free[target] = False
        written.append((target, token))
        counts["committed"] += content
        counts["displaced"] += target != own
        if is_swap and target != own:
            free[own] = False
            taken.add(target)
            written.append((own, predicted[target]))
            counts["displaced"] += 1
            counts["committed"] += 1
    return sorted(written), Dose(**counts)


@settings(max_examples=250, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["shift", "swap"]))
def test_shift_equals_its_rule_restated(data, kind):
    length = data.draw(st.integers(1, 9))
    free = data.draw(st.lists(st.booleans(), min_size=length, max_size=length).filter(any))
    places = data.draw(st.permutations([i for i in range(length) if free[i]]))
    places = places[: data.draw(st.integers(1, len(places)))]
    predicted = data.draw(st.lists(st.integers(0, 11), min_size=length, max_size=length))
    rate = data.draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    direction = data.draw(st.sampled_from(["left", "right", "both"]))
    rng = np.random.Generator(np.random.PCG64(data.draw(st.integers(0, 10_000))))
    uniforms = rng.random((len(places), 3))
    intervention = ShiftIntervention(rate, kind=kind, direction=direction, seed=0)
    tokens = [predicted[i] for i in places]
    written, dose, _ = place(intervention, places, tokens, free, uniforms, predicted=predicted)
    expected = restated(intervention, places, free, predicted, uniforms)
    assert (sorted(written), dose) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": -0.1}, "rate: expected at least 0, got -0.1"),
        ({"rate": 1.5}, "rate: expected at most 1, got 1.5"),
        ({"rate": 1.0, "kind": "drop"}, "rate: drop needs a rate below 1"),
        ({"rate": 0.1, "kind": "jump"}, "kind: expected one of shift, .* got 'jump'"),
        ({"rate": 0.1, "direction": "up"}, "direction: expected one of left, right, both"),
        ({"rate": 0.1, "when": "now"}, "when: expected one of always, early, late"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        ShiftIntervention(**arguments, seed=0)


@pytest.mark.parametrize("kind", ["shift", "substitute", "drop"])
def test_the_realised_dose_is_the_rate_asked_for(toy, kind):
    """Over many tokens decided on, drops included, asked / tokens lies within four standard errors of the rate."""
    rate = 0.1
    config = SamplerConfig(canvas_length=32, steps=8, temperature=1.0, batch_size=50)
    answers = Sampler(toy, config, ShiftIntervention(rate, kind=kind, seed=0)).generate(
        ["tell twice cat"] * 100
    )
    asked = sum(a.dose.asked for a in answers)
    displaced = sum(a.dose.displaced for a in answers)
    impossible = sum(a.dose.impossible for a in answers)
    decided = sum(a.dose.committed for a in answers) + (displaced if kind == "drop" else 0)
    assert abs(asked / decided - rate) < 4 * (rate * (1 - rate) / decided) ** 0.5
    assert displaced + impossible == asked
    assert all(
        a.num_displaced == a.dose.displaced and a.num_committed == a.dose.committed for a in answers
    )


def test_a_higher_rate_displaces_the_tokens_of_a_lower_one_and_more():
    """Common random numbers: the draw does not depend on the rate."""
    uniforms = np.random.Generator(np.random.PCG64(0)).random((30, 3))
    step = list(range(0, 60, 2)), [5] * 30, [1] * 60, uniforms
    low, high = (place(ShiftIntervention(rate, seed=0), *step)[2] for rate in (0.1, 0.5))
    assert sum(low) > 0
    assert all(h for h, was in zip(high, low, strict=True) if was)
    assert sum(high) > sum(low)


def test_the_intervention_does_not_draw_the_sampler_s_numbers():
    """Same seed, same row: two streams that have nothing to do with each other."""
    sampler = np.random.Generator(np.random.PCG64([3, 7])).random(1000)
    intervention = ShiftIntervention(0.1, seed=3).row_generator(7).random(1000)
    assert not np.isin(intervention, sampler).any()
    assert abs(np.corrcoef(sampler, intervention)[0, 1]) < 0.15


def test_swap_commits_both_tokens_on_each_other_s_place():
    swap = ShiftIntervention(0.5, kind="swap", seed=0)
    predicted = [9, 6, 5, 7, 9]
    written, dose, altered = place(swap, [2], [5], OPEN, [RIGHT], predicted=predicted)
    assert written == [(3, 5), (2, 7)]
    assert dose == Dose(asked=1, displaced=2, impossible=0, lost=0, committed=2)
    assert altered == [True, True]


def test_a_swapped_neighbour_is_not_lost_and_not_written_twice():
    swap = ShiftIntervention(0.5, kind="swap", direction="right", seed=0)
    step = [2, 3, 4], [5, 7, 9], OPEN, [LEFT, LEFT, KEPT]
    written, dose, _ = place(swap, *step, predicted=[9, 6, 5, 7, 9])
    assert written == [(3, 5), (4, 9), (2, 7)]
    assert dose == Dose(asked=1, displaced=2, impossible=0, lost=0, committed=3)


@pytest.mark.parametrize(("when", "expected"), [("early", (True, False)), ("late", (False, True))])
def test_a_phase_is_told_by_the_masked_share(when, expected):
    intervention = ShiftIntervention(0.5, when=when, seed=0)
    assert (intervention.acts(0.51), intervention.acts(0.5)) == expected
    assert ShiftIntervention(0.5, seed=0).acts(0.0)


@pytest.mark.parametrize("when", ["early", "late"])
def test_only_commits_of_the_phase_are_altered(toy, when):
    config = SamplerConfig(canvas_length=20, steps=10, temperature=1.0, trace=True)
    answers = Sampler(toy, config, ShiftIntervention(0.8, when=when, seed=0)).generate(
        ["tell twice cat"] * 8
    )
    halves = {"early": 0, "late": 0}
    for answer in answers:
        masked = 20
        for step in answer.steps:
            phase = "early" if masked > 10 else "late"
            halves[phase] += sum(commit.altered for commit in step)
            masked -= len(step)
    assert halves.pop(when) > 0
    assert list(halves.values()) == [0]


def test_substitutes_are_never_an_end_a_mask_or_slack(toy):
    """Also where the tokenizer does not call its end of turn special."""
    decoding = Decoding(toy, SamplerConfig(canvas_length=4), None, [[1]], [0])
    never = {*toy.eos_ids, toy.mask_id, toy.slack_id, toy.pad_id}
    assert not set(toy.eos_ids) <= set(toy.tokenizer.all_special_ids)
    assert not never & set(decoding.content_ids.tolist())
    assert len(decoding.content_ids) > 30


@pytest.mark.parametrize("kind", ["shift", "substitute", "drop", "swap"])
@pytest.mark.parametrize("remasking", ["random", "margin", "threshold", "entropy_bound"])
def test_every_strategy_takes_an_intervention_and_rate_0_does_nothing(toy, kind, remasking):
    bound = {"threshold": 0.05, "entropy_bound": 4.0}.get(remasking)
    config = SamplerConfig(canvas_length=16, remasking=remasking, bound=bound, temperature=1.0)
    prompts = ["tell twice cat", "tell thrice red boat softly"]
    never, often = (ShiftIntervention(rate, kind=kind, seed=1) for rate in (0.0, 0.5))
    plain = Sampler(toy, config).generate(prompts)
    assert Sampler(toy, config, never).generate(prompts) == plain
    for answer in decode_as_alone(toy, config, prompts, often):
        assert answer.dose.asked > 0
        assert answer.dose.displaced > 0
