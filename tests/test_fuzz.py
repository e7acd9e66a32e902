"""Whatever an input file holds, it is refused with one short message or read for what it says.

A sample of every kind, the same on every run; ``-m slow`` and ``benchmarks/fuzz.py`` take many more.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_inputs import Kind, attempt, spoilt
from hostile_kinds import all_kinds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KINDS = {kind.name: kind for kind in all_kinds()}
SLOW_MANY = 300


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Warnings about torn checkpoints are not the subject here."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def try_many(kind: Kind, folder: Path, *, many: int) -> None:
    file = kind.place(folder)
    valid = attempt(kind, file, kind.content)
    assert not valid.refused, valid.message

    @settings(max_examples=many, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def each(data: st.DataObject) -> None:
        attempt(kind, file, data.draw(spoilt(kind.content, kind.syntax)))

    each()


@pytest.mark.parametrize("name", KINDS)
def test_a_spoilt_file_is_refused_or_read_for_what_it_says(name: str, tmp_path: Path) -> None:
    try_many(KINDS[name], tmp_path, many=KINDS[name].sample)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_spoilt_files(name: str, tmp_path: Path) -> None:
    try_many(KINDS[name], tmp_path, many=SLOW_MANY)
