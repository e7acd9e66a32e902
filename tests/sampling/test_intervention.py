import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slackdlm.errors import ConfigError
from slackdlm.sampling.intervention import Dose, Proposal, ShiftIntervention

SLACK, PAD = 0, 1
EXEMPT = torch.tensor([SLACK, PAD])
CONTENT = torch.arange(2, 12)


def proposal(positions, tokens, free, predicted=None) -> Proposal:
    if predicted is None:
        predicted = [9] * len(free)
    return Proposal(
        torch.tensor([positions]),
        torch.tensor([tokens]),
        torch.ones(1, len(positions), dtype=torch.bool),
        torch.tensor([free], dtype=torch.bool),
        torch.tensor([predicted]),
    )


def draws(asked, coin=0.0, pick=0.0):
    """Uniforms: 0 asks, 1 does not; a coin below one half goes left."""
    return torch.tensor([[[0.0 if a else 0.999, coin, pick] for a in asked]], dtype=torch.float64)


def place(intervention, proposal, uniforms):
    placed = intervention.place(proposal, uniforms, exempt_ids=EXEMPT, content_ids=CONTENT)
    written = [
        (int(p), int(t))
        for p, t, w in zip(placed.positions[0], placed.tokens[0], placed.written[0], strict=True)
        if w
    ]
    return written, Dose(*placed.dose[0].tolist()), placed.altered[0].tolist()


def test_a_token_moves_one_place_and_leaves_its_own_masked():
    shift = ShiftIntervention(0.5, seed=0)
    assert place(shift, proposal([2], [5], [1] * 5), draws([True]))[0] == [(1, 5)]
    assert place(shift, proposal([2], [5], [1] * 5), draws([True], coin=0.9))[0] == [(3, 5)]


@pytest.mark.parametrize(("direction", "expected"), [("left", 1), ("right", 3)])
def test_direction_restricts_the_neighbour(direction, expected):
    shift = ShiftIntervention(0.5, direction=direction, seed=0)
    for coin in (0.0, 0.9):
        written, _, _ = place(shift, proposal([2], [5], [1] * 5), draws([True], coin=coin))
        assert written == [(expected, 5)]


def test_the_only_free_neighbour_is_used():
    shift = ShiftIntervention(0.5, seed=0)
    written, dose, _ = place(shift, proposal([2], [5], [1, 0, 1, 1, 1]), draws([True]))
    assert written == [(3, 5)]
    assert dose == Dose(asked=1, displaced=1, impossible=0, lost=0, committed=1)


@pytest.mark.parametrize("own", [0, 4])
def test_the_canvas_ends_are_never_left(own):
    free = [0] * 5
    free[own] = 1
    written, dose, altered = place(
        ShiftIntervention(1.0, seed=0), proposal([own], [5], free), draws([True])
    )
    assert written == [(own, 5)]
    assert dose == Dose(asked=1, displaced=0, impossible=1, lost=0, committed=1)
    assert altered == [False]


def test_a_token_whose_place_was_taken_waits():
    written, dose, _ = place(
        ShiftIntervention(0.5, seed=0), proposal([2, 1], [5, 6], [1] * 5), draws([True, False])
    )
    assert written == [(1, 5)]
    assert dose == Dose(asked=1, displaced=1, impossible=0, lost=1, committed=1)


def test_a_token_just_committed_is_no_free_neighbour():
    written, dose, _ = place(
        ShiftIntervention(0.5, direction="left", seed=0),
        proposal([1, 2], [5, 6], [1] * 5),
        draws([False, True]),
    )
    assert written == [(1, 5), (2, 6)]
    assert dose == Dose(asked=1, displaced=0, impossible=1, lost=0, committed=2)


def test_slack_and_padding_are_neither_displaced_nor_counted():
    for kind in ("shift", "substitute", "drop"):
        written, dose, _ = place(
            ShiftIntervention(0.9, kind=kind, seed=0),
            proposal([1, 3], [SLACK, PAD], [1] * 5),
            draws([True, True]),
        )
        assert written == [(1, SLACK), (3, PAD)]
        assert dose == Dose(0, 0, 0, 0, 0)


def test_substitute_writes_another_content_token_in_place():
    substitute = ShiftIntervention(0.5, kind="substitute", seed=0)
    seen = set()
    for pick in np.linspace(0, 0.9999, 200):
        written, dose, altered = place(
            substitute, proposal([2], [5], [1] * 5), draws([True], pick=float(pick))
        )
        assert written[0][0] == 2
        seen.add(written[0][1])
        assert dose == Dose(asked=1, displaced=1, impossible=0, lost=0, committed=1)
        assert altered == [True]
    assert seen == set(CONTENT.tolist()) - {5}, "every other content token and never the same one"


@pytest.mark.parametrize("token", [-1, 50])
def test_a_token_that_is_no_content_has_every_content_token_as_substitute(token):
    substitute = ShiftIntervention(0.5, kind="substitute", seed=0)
    picks = np.linspace(0, 0.9999, 200).tolist()
    placed = [
        place(substitute, proposal([2], [token], [1] * 5), draws([True], pick=pick))[0]
        for pick in picks
    ]
    assert {written[0][1] for written in placed} == set(CONTENT.tolist())


def test_drop_skips_the_commit():
    written, dose, _ = place(
        ShiftIntervention(0.5, kind="drop", seed=0),
        proposal([2, 3], [5, 6], [1] * 5),
        draws([True, False]),
    )
    assert written == [(3, 6)]
    assert dose == Dose(asked=1, displaced=1, impossible=0, lost=0, committed=1)


def restated_shift(positions, tokens, free, uniforms, rate):
    """The rule of the design, one token at a time, in plain Python."""
    free, written, counts = list(free), [], dict.fromkeys(Dose._fields, 0)
    for place_, token, (ask, coin, _) in zip(positions, tokens, uniforms, strict=True):
        content = token not in (SLACK, PAD)
        if not free[place_]:
            counts["lost"] += content
            continue
        target = place_
        if content and ask < rate:
            counts["asked"] += 1
            options = [q for q in (place_ - 1, place_ + 1) if 0 <= q < len(free) and free[q]]
            if options:
                target = options[0] if len(options) == 1 or coin < 0.5 else options[1]
                counts["displaced"] += 1
            else:
                counts["impossible"] += 1
        free[target] = False
        written.append((target, token))
        counts["committed"] += content
    return written, Dose(**counts)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_shift_equals_its_rule_restated(data):
    length = data.draw(st.integers(1, 9))
    free = data.draw(st.lists(st.booleans(), min_size=length, max_size=length).filter(any))
    places = data.draw(st.permutations([i for i in range(length) if free[i]]))
    places = places[: data.draw(st.integers(1, len(places)))]
    tokens = data.draw(st.lists(st.integers(0, 11), min_size=len(places), max_size=len(places)))
    rate = data.draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    seed = data.draw(st.integers(0, 10_000))
    uniforms = np.random.Generator(np.random.PCG64(seed)).random((len(places), 3))
    expected = restated_shift(places, tokens, free, uniforms, rate)
    written, dose, _ = place(
        ShiftIntervention(rate, seed=0),
        proposal(places, tokens, [int(f) for f in free]),
        torch.from_numpy(uniforms)[None],
    )
    assert (written, dose) == expected


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
    from slackdlm.sampling.sampler import Sampler, SamplerConfig

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
    uniforms = torch.from_numpy(np.random.Generator(np.random.PCG64(0)).random((1, 30, 3)))
    tokens, free = [5] * 30, [1] * 60
    places = list(range(0, 60, 2))
    low = place(ShiftIntervention(0.1, seed=0), proposal(places, tokens, free), uniforms)[2]
    high = place(ShiftIntervention(0.5, seed=0), proposal(places, tokens, free), uniforms)[2]
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
    written, dose, altered = place(
        swap, proposal([2], [5], [1] * 5, predicted), draws([True], coin=0.9)
    )
    assert written == [(3, 5), (2, 7)]
    assert dose == Dose(asked=1, displaced=2, impossible=0, lost=0, committed=2)
    assert altered == [True, True]


def test_a_swapped_neighbour_is_not_lost_and_not_written_twice():
    swap = ShiftIntervention(0.5, kind="swap", direction="right", seed=0)
    written, dose, _ = place(
        swap,
        proposal([2, 3, 4], [5, 7, 9], [1] * 5, [9, 6, 5, 7, 9]),
        draws([True, True, False]),
    )
    assert written == [(3, 5), (4, 9), (2, 7)]
    assert dose == Dose(asked=1, displaced=2, impossible=0, lost=0, committed=3)


@pytest.mark.parametrize(
    ("free", "neighbour"), [([1] * 5, PAD), ([1] * 5, SLACK), ([1, 0, 1, 0, 1], 7)]
)
def test_a_swap_needs_a_free_neighbour_with_a_content_token(free, neighbour):
    swap = ShiftIntervention(0.5, kind="swap", seed=0)
    predicted = [9, neighbour, 5, neighbour, 9]
    written, dose, _ = place(swap, proposal([2], [5], free, predicted), draws([True]))
    assert written == [(2, 5)]
    assert dose == Dose(asked=1, displaced=0, impossible=1, lost=0, committed=1)


def restated_swap(places, tokens, free, predicted, uniforms, rate):
    """The rule in plain Python."""
    free, written, counts, taken = list(free), [], dict.fromkeys(Dose._fields, 0), set()
    for own, token, (ask, coin, _) in zip(places, tokens, uniforms, strict=True):
        content = token not in (SLACK, PAD)
        if not free[own]:
            counts["lost"] += content and own not in taken
            continue
        options = []
        if content and ask < rate:
            counts["asked"] += 1
            options = [
                q
                for q in (own - 1, own + 1)
                if 0 <= q < len(free) and free[q] and predicted[q] not in (SLACK, PAD)
            ]
            counts["impossible"] += not options
        free[own] = False
        if options:
            other = options[0] if len(options) == 1 or coin < 0.5 else options[1]
            free[other] = False
            taken.add(other)
            written += [(other, token), (own, predicted[other])]
            counts["displaced"] += 2
            counts["committed"] += 2
        else:
            written.append((own, token))
            counts["committed"] += content
    return sorted(written), Dose(**counts)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_swap_equals_its_rule_restated(data):
    length = data.draw(st.integers(1, 9))
    free = data.draw(st.lists(st.booleans(), min_size=length, max_size=length).filter(any))
    places = data.draw(st.permutations([i for i in range(length) if free[i]]))
    places = places[: data.draw(st.integers(1, len(places)))]
    predicted = data.draw(st.lists(st.integers(0, 11), min_size=length, max_size=length))
    tokens = [predicted[i] for i in places]
    rate = data.draw(st.sampled_from([0.0, 0.3, 0.7, 1.0]))
    seed = data.draw(st.integers(0, 10_000))
    uniforms = np.random.Generator(np.random.PCG64(seed)).random((len(places), 3))
    expected = restated_swap(places, tokens, free, predicted, uniforms, rate)
    written, dose, _ = place(
        ShiftIntervention(rate, kind="swap", seed=0),
        proposal(places, tokens, [int(f) for f in free], predicted),
        torch.from_numpy(uniforms)[None],
    )
    assert (sorted(written), dose) == expected


@pytest.mark.parametrize(("when", "expected"), [("early", (True, False)), ("late", (False, True))])
def test_a_phase_is_told_by_the_masked_share(when, expected):
    intervention = ShiftIntervention(0.5, when=when, seed=0)
    assert (intervention.acts(0.51), intervention.acts(0.5)) == expected
    assert ShiftIntervention(0.5, seed=0).acts(0.0)


@pytest.mark.parametrize("when", ["early", "late"])
def test_only_commits_of_the_phase_are_altered(toy, when):
    from slackdlm.sampling.sampler import Sampler, SamplerConfig

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
    from slackdlm.sampling.decoding import Decoding
    from slackdlm.sampling.sampler import SamplerConfig

    decoding = Decoding(toy, SamplerConfig(canvas_length=4), None, [[1]], [0])
    never = {*toy.eos_ids, toy.mask_id, toy.slack_id, toy.pad_id}
    assert not set(toy.eos_ids) <= set(toy.tokenizer.all_special_ids)
    assert not never & set(decoding.content_ids.tolist())
    assert len(decoding.content_ids) > 30


@pytest.mark.parametrize("kind", ["shift", "substitute", "drop", "swap"])
@pytest.mark.parametrize("remasking", ["random", "margin", "threshold", "entropy_bound"])
def test_every_strategy_takes_an_intervention_and_rate_0_does_nothing(toy, kind, remasking):
    from slackdlm.sampling.sampler import Sampler, SamplerConfig

    bound = {"threshold": 0.05, "entropy_bound": 4.0}.get(remasking)
    config = SamplerConfig(canvas_length=16, remasking=remasking, bound=bound, temperature=1.0)
    prompts = ["tell twice cat", "tell thrice red boat softly"]
    plain = Sampler(toy, config).generate(prompts)
    assert (
        Sampler(toy, config, ShiftIntervention(0.0, kind=kind, seed=1)).generate(prompts) == plain
    )
    altered = Sampler(toy, config, ShiftIntervention(0.5, kind=kind, seed=1)).generate(prompts)
    alone = [
        Sampler(toy, config, ShiftIntervention(0.5, kind=kind, seed=1)).generate([p], row_ids=[i])[
            0
        ]
        for i, p in enumerate(prompts)
    ]
    assert [a.canvas for a in alone] == [a.canvas for a in altered]
    assert [a.dose for a in alone] == [a.dose for a in altered]
    for answer in altered:
        assert answer.dose.asked > 0
        assert answer.dose.displaced > 0
