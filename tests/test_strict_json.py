import pytest

from slackdlm.strict_json import parse


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("NaN", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("1e400", "the number 1e400 does not fit a double"),
        ('{"b": 1, "a": 2, "a": 3}', "duplicate key 'a'"),
        ('{"x": {"\\u001b": 1, "\\u001b": 1}}', "duplicate key .*x1b"),
        ("[" * 100_000, "nested too deeply"),
        ("9" * 5000, "4300"),
        ('{"a":\n oops}', "Expecting value at line 2"),
        ("", "Expecting value"),
    ],
)
def test_what_is_no_strict_json_is_refused_with_a_short_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(text)
    assert len(str(caught.value)) < 160
    assert str(caught.value).isprintable()


def test_values_are_read_as_they_are() -> None:
    assert parse('{"a": [1, -0.5, true, null, "\\ud800"], "": {}}') == {
        "a": [1, -0.5, True, None, "\ud800"],
        "": {},
    }
