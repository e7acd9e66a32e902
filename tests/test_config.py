import itertools
import re
from dataclasses import replace
from typing import Literal

import pytest

from slackdlm.config import (
    Flag,
    Real,
    Text,
    Texts,
    Whole,
    apply_overrides,
    build,
    flatten,
    help_of,
    settings,
)
from slackdlm.errors import ConfigError
from slackdlm.strict_yaml import read_yaml


@settings
class Inner:
    """A block."""

    rate: Real = 0.5
    """Share of
    the cells."""
    kind: Literal["red", "blue"] = "red"
    span: tuple[Real, Real] = (0.0, 1.0)
    on: Flag = False
    label: Text | None = None
    names: Texts = ("a",)


@settings
class Outer:
    """The whole."""

    count: Whole
    inner: Inner


def test_a_mapping_becomes_nested_dataclasses() -> None:
    inner = {"rate": 1, "span": [0, 0.5], "label": None, "names": ["a", "b", "c"]}
    built = build(Outer, {"count": 3, "inner": inner})
    assert built == Outer(count=3, inner=Inner(rate=1.0, span=(0.0, 0.5), names=("a", "b", "c")))
    assert isinstance(built.inner.rate, float)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"cuont": 3, "inner": {}}, r"^cuont: unknown key; did you mean count\?$"),
        (
            {"count": 3, "inner": {"rte": 1}},
            r"^inner\.rte: unknown key; did you mean inner\.rate\?",
        ),
        ({"count": 3, "inner": {"zzz": 1}}, r"^inner\.zzz: unknown key; known keys: rate, kind"),
        ({"inner": {}}, r"^count: this key is required and missing; .* --set count="),
        ({"count": 3.5, "inner": {}}, r"^count: expected a whole number, got 3\.5 \(float\)"),
        ({"count": True, "inner": {}}, r"^count: expected a whole number, got True \(bool\)"),
        ({"count": 3, "inner": {"on": 1}}, r"^inner\.on: expected true or false, got 1"),
        ({"count": 3, "inner": {"rate": "x"}}, r"^inner\.rate: expected a number, got 'x'"),
        ({"count": 3, "inner": {"rate": None}}, r"^inner\.rate: expected a number, got nothing"),
        ({"count": 3, "inner": {"label": 4}}, r"^inner\.label: expected text, got 4"),
        ({"count": 3, "inner": {"kind": "blu"}}, r"^inner\.kind: expected .* did you mean blue\?"),
        ({"count": 3, "inner": {"span": [1]}}, r"^inner\.span: expected a list of 2 items"),
        ({"count": 3, "inner": {"span": [1, "a"]}}, r"^inner\.span: expected a number, got 'a'"),
        ({"count": 3, "inner": {"names": []}}, r"^inner\.names: expected a list of 1 or more"),
        ({"count": 3, "inner": {"names": "a"}}, r"^inner\.names: expected a list, got 'a'"),
        ({"count": 3, "inner": {"names": ["a", 1]}}, r"^inner\.names: expected text, got 1 \(int"),
        ({"count": 3, "inner": 4}, r"^inner: expected a mapping of keys, got 4"),
        (None, r"^recipe: expected a mapping of keys, got nothing"),
    ],
)
def test_a_wrong_mapping_is_refused_with_its_dotted_key(mapping: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(Outer, mapping)


def test_overrides_are_yaml_and_make_missing_blocks() -> None:
    mapping = {"inner": None}
    apply_overrides(mapping, ["count=2", "inner.span=[0, 1]", "inner.on=true", "new.e=x=y"], Outer)
    assert mapping == {
        "count": 2,
        "inner": {"span": [0, 1], "on": True},
        "new": {"e": "x=y"},
    }


TEXTS = [
    *(
        "run #2/train.jsonl",
        "#x",
        "a # b",
        "2024",
        "012",
        "1e3",
        "on",
        "yes",
        "no",
        "true",
        "~",
        "null",
    ),
    *(
        "a: b",
        "[x",
        "*x",
        "&x",
        "!x",
        "%x",
        "@x",
        "|",
        "> x",
        "- x",
        "'x'",
        '"x"',
        "x ",
        " x",
        "a=b",
        "{",
    ),
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_value_of_a_text_is_all_behind_the_equals_sign(text: str) -> None:
    mapping: dict[str, object] = {"count": 1}
    apply_overrides(mapping, [f"inner.label={text}"], Outer)
    assert build(Outer, mapping).inner.label == (None if text == "null" else text)


@pytest.mark.parametrize(
    "value", ["0.25 #2", "0.25 # half", "# 1", "null #", "[0, 1] #x", "{a: 1} # x"]
)
def test_a_comment_in_the_value_of_an_override_is_refused(value: str) -> None:
    with pytest.raises(
        ConfigError, match=f"--set inner.rate={re.escape(value)}: the value is cut short by ' #'"
    ):
        apply_overrides({}, [f"inner.rate={value}"], Outer)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner", r"--set inner: expected key\.subkey=value"),
        ("inner..b=1", r"expected key\.subkey=value"),
        ("=1", r"expected key\.subkey=value"),
        ("inner.span=[1", r"the value is not valid YAML"),
        ("inner.rate=", r"--set inner\.rate=: there is no value; null stands for none"),
        ("inner.rate.c=1", r"inner\.rate is a value, not a block"),
    ],
)
def test_a_wrong_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        apply_overrides({"inner": {"rate": 1}}, [override], Outer)


def test_settings_made_in_python_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"Inner\.rate: expected a number, got 'x'"):
        Inner(rate="x")
    with pytest.raises(ConfigError, match=r"Inner\.rte: unknown key; did you mean rate\?"):
        replace(Inner(), rte=1)


def test_the_help_of_a_setting_is_the_text_below_it() -> None:
    assert help_of(Inner) == {"rate": "Share of the cells."}


@pytest.mark.parametrize("text", ["1e-5", "1E5", "-2.e3", "1.0e-3"])
def test_exponents_without_a_point_are_numbers(text: str) -> None:
    assert read_yaml(text) == float(text)


@pytest.mark.parametrize("text", ["1:30", "010", "0x10", "1_000", "2024-01-01"])
def test_what_yaml_1_1_would_turn_into_another_number_stays_text(text: str) -> None:
    assert read_yaml(text) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"line 3, column 1: duplicate key a"),
        ("[1, 2]: 3", "a key is no text"),
        ("!!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !!int x", "not valid YAML"),
        ("a: [", "line 1, column 5"),
        ("[" * 10_000, "nested too deeply"),
        ("9" * 5000, "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_what_is_no_plain_yaml_is_one_short_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(text)
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


def test_a_bomb_of_aliases_is_refused_at_once_with_a_short_message() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for old, new in itertools.pairwise("abcdefghi"):
        bomb += f"{new}: &{new} [{', '.join(9 * ['*' + old])}]\n"
    with pytest.raises(ConfigError, match="unknown key"):
        build(Inner, read_yaml(bomb))
    with pytest.raises(ConfigError, match="expected a") as caught:
        build(Inner, {"rate": read_yaml(bomb)})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("key", ["\x1b[31mrate", "rate\nsteps", "x" * 5000, 7, None])
def test_an_unknown_key_is_shown_short_and_printable(key: object) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        build(Inner, {key: 1})
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


def test_a_number_that_no_double_holds_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rate: expected a number, got 1000.*000 \(int\)"):
        build(Inner, {"rate": 10**400})


def test_words_that_look_like_exponents_stay_text() -> None:
    assert read_yaml("[e5, 1e, 1e5x]") == ["e5", "1e", "1e5x"]


def test_flattening_names_every_leaf() -> None:
    assert flatten({"a": {"b": 1, "c": (1, 2)}, "d": None}) == {"a.b": 1, "a.c": [1, 2], "d": None}
