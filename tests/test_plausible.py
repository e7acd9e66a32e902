"""Another tool's valid files with one thing more: used, named as not used, or refused.

A sample of every door, the same on every run; ``benchmarks/fuzz.py`` takes many more.
"""

from pathlib import Path

import plausible_inputs
import plausible_judging
import plausible_models
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plausible_inputs import Door, check

DOORS: dict[str, Door] = {
    door.name: door
    for module in (plausible_inputs, plausible_models, plausible_judging)
    for door in module.all_doors()
}


@pytest.mark.parametrize("name", DOORS)
def test_what_is_let_in_is_used_named_or_refused(name: str, tmp_path: Path) -> None:
    door = DOORS[name]

    @settings(max_examples=door.sample, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.data())
    def each(data: st.DataObject) -> None:
        check(door, data.draw(door.inputs), tmp_path)

    each()
