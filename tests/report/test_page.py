import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from slackdlm.errors import DataError
from slackdlm.report import write_report
from slackdlm.report.page import canvas_parts, flatten, render
from slackdlm.report.results import checked

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<!-- <script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{ 7 * 191 }}{% raw %}",
    "a\0b",
    "🚢 \u202egnihton\u202c مرحبا",
    "\ud800",
    "javascript:alert(1)",
]
OURS = {"html", "head", "body", "main", "header", "nav", "section", "article", "figure", "details"}
VOID = {"meta", "link", "source", "img", "input"}


class Page(HTMLParser):
    """Elements, attributes and text of a page, with a check that elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        if tag not in VOID:
            self.inside.append(tag)

    def handle_endtag(self, tag):
        assert self.inside.pop() == tag

    def handle_data(self, data):
        if self.inside and self.inside[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self.inside:
            self.words.append(data)

    @property
    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def page(results) -> str:
    """The page without its plots, which have tests of their own and take seconds."""
    return render(checked(results), [])


def everywhere(value, text):
    """The results with ``text`` in the place of every free string."""
    kept = {"arm", "name", "kind", "state", "against"}
    if isinstance(value, dict):
        return {k: v if k in kept else everywhere(v, text) for k, v in value.items()}
    if isinstance(value, list):
        return [everywhere(item, text) for item in value]
    return text if isinstance(value, str) else value


def test_a_report_writes_page_table_and_plots(report):
    path = report
    assert path.name == "report.html"
    assert (path.parent / "table.md").read_text(encoding="utf-8").startswith("| temperature |")
    assert sorted(file.stem for file in (path.parent / "plots").iterdir()) == [
        "plainness_temperature_0",
        "plainness_temperature_1",
        "quality_by_steps",
        "shift_temperature_0",
        "training",
    ]
    assert all(file.stat().st_size > 10_000 for file in (path.parent / "plots").iterdir())


def test_the_page_refers_to_nothing_outside_itself(report):
    text = report.read_text(encoding="utf-8")
    found = Page(text)
    images = [attrs for tag, attrs in found.elements if tag in ("img", "source")]
    assert len(images) == 10
    for _, attrs in found.elements:
        for name in ("src", "srcset", "href", "poster", "action"):
            assert attrs.get(name, "data:").startswith(("data:", "#"))
    for attrs in images:
        data = (attrs.get("src") or attrs["srcset"]).partition("base64,")[2]
        assert b"</svg>" in base64.b64decode(data)
    style = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert "url(" not in style[0]
    assert "@import" not in style[0]


def test_the_same_results_give_the_same_page(report, results, tmp_path):
    assert write_report(results, tmp_path).read_bytes() == report.read_bytes()


def test_the_policy_allows_our_script_alone(results):
    found = Page(page(results))
    policy = next(a["content"] for t, a in found.elements if "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(found.scripts[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text, results):
    plain, found = Page(page(results)), Page(page(everywhere(results, text)))
    allowed = set(plain.tags) | {"span"}
    assert set(found.tags) <= allowed
    for tag in OURS | {"script", "img"}:
        assert found.tags.count(tag) == plain.tags.count(tag)
    assert not any(name.startswith("on") for _, attrs in found.elements for name in attrs)
    shown = text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    assert any(shown in word for word in found.words)
    assert "1337" not in "".join(found.words)


@pytest.mark.parametrize("text", HOSTILE)
def test_replay_data_survives_hostile_tokens(text, results):
    results["replays"][0]["frames"][1]["cells"][0]["token"] = text
    data, _ = Page(page(results)).scripts
    frames = json.loads(data)[0]["tracks"][0]["frames"]
    shown = text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    assert frames[1]["cells"][0] == [shown, 1, 1]


def test_what_to_know_before_reading_stands_before_the_findings(report):
    page = report.read_text(encoding="utf-8")
    assert page.index("It is a toy.") < page.index("It works.")


def test_the_last_frame_can_be_read_without_a_script(results):
    text = page(results)
    assert '<span class="cell displaced"><bdi>b</bdi></span>' in text
    assert '<span class="cell slack"><bdi>slack</bdi></span>' in text


def test_the_player_can_be_worked_by_keyboard_and_screen_reader(results):
    found = Page(page(results))
    controls = [a for t, a in found.elements if t in ("button", "input", "select")]
    assert {a["data-role"] for a in controls} == {"scene", "play", "back", "next", "step"}
    assert all("aria-label" in a or a["data-role"] == "play" for a in controls)


def test_missing_values_print_as_dashes(results):
    for row in results["quality"]:
        row["metrics"]["words"] |= {"value": None, "low": None, "high": None, "num_scored": 0}
    results["win_rates"][0] |= {"value": None, "low": None, "high": None}
    results["win_rates"][0] |= {"p_value": None, "p_adjusted": None, "num_scored": 0}
    results["samples"][0] |= {"text": "", "verdict": ""}
    text = page(results)
    row = re.search(r"<tr[^>]*>(?:(?!</tr>).)*0 / 64</td></tr>", text, flags=re.DOTALL).group()
    assert row.count("<td>–</td>") == 4
    assert "nan" not in text.lower().replace("nano", "")
    assert "None" not in text


def test_an_empty_study_says_what_it_lacks(empty, tmp_path):
    text = write_report(empty, tmp_path).read_text(encoding="utf-8")
    for sentence in ("No un-intervened results", "No replays", "No samples", "Nothing to plot"):
        assert sentence in text
    assert list((tmp_path / "plots").iterdir()) == []


def test_a_metric_scored_on_fewer_questions_says_so(results):
    results["quality"][0]["metrics"]["words"]["num_scored"] = 40
    assert "<small>n = 40 / 64</small>" in page(results)


def test_only_corrected_findings_are_bold(results):
    text = page(results)
    assert "<strong>0.750</strong>" in text
    assert "<strong>0.490</strong>" not in text


def test_the_page_says_what_its_intervals_speak_about(results):
    assert "new training runs" in page(results)
    for row in results["quality"]:
        row["per_training_seed"] = {"quality": [0.5]}
    assert "new training runs" not in page(results)


def test_torn_results_leave_no_report(results, tmp_path):
    del results["arms"]
    with pytest.raises(DataError, match="arms is missing"):
        write_report(results, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_special_tokens_of_a_canvas_are_set_apart():
    assert canvas_parts("a <slack> b<|eot_id|>") == [
        ("a ", False),
        ("<slack>", True),
        (" b", False),
        ("<|eot_id|>", True),
    ]
    assert canvas_parts("") == []


def test_a_nested_config_is_listed_by_dotted_name():
    assert flatten({"a": {"b": 1, "c": {}}, "d": None, "e": [1]}) == [
        ("a.b", "1"),
        ("a.c", "{}"),
        ("d", "–"),
        ("e", "[1]"),
    ]
