import pytest

from slackdlm.errors import counted


@pytest.mark.parametrize(
    ("number", "noun", "shown"),
    [
        (0, "step", "0 steps"),
        (1, "step", "1 step"),
        (12_208, "parameter", "12,208 parameters"),
        (1, "process", "1 process"),
        (2, "process", "2 processes"),
    ],
)
def test_nouns_agree_with_their_number(number: int, noun: str, shown: str) -> None:
    assert counted(number, noun) == shown
