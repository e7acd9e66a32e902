import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from slackdlm.report import write_report
from slackdlm.report.page import canvas_parts, render
from slackdlm.study.result import Result

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
    return render(Result.model_validate(results), [])


def everywhere(value, text):
    """The results with ``text`` in the place of every free string."""
    kept = {"arm", "name", "kind", "state", "against"}
    if isinstance(value, dict):
        return {k: v if k in kept else everywhere(v, text) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [everywhere(item, text) for item in value]
    return text if isinstance(value, str) else value


def test_a_report_writes_page_table_and_plots(report):
    path = report
    assert path.name == "report.html"
    assert (
        (path.parent / "table.md")
        .read_text(encoding="utf-8")
        .startswith("> **Before you read on:** It is a toy.")
    )
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
    assert (
        write_report(Result.model_validate(results), tmp_path).read_bytes() == report.read_bytes()
    )


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


def test_the_page_can_be_read_in_order_without_a_script_and_worked_by_keyboard(results):
    text = page(results)
    assert text.index("It is a toy.") < text.index("It works.")
    assert '<span class="cell displaced"><bdi>b</bdi></span>' in text
    assert '<span class="cell slack"><bdi>slack</bdi></span>' in text
    controls = [a for t, a in Page(text).elements if t in ("button", "input", "select")]
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


def test_an_empty_study_has_no_empty_sections(empty, tmp_path):
    text = write_report(Result.model_validate(empty), tmp_path).read_text(encoding="utf-8")
    assert "Nothing was compared" in text
    assert "Nothing to plot" in text
    assert not re.search(r'id="(main-table|replay|samples)"', text)
    assert list((tmp_path / "plots").iterdir()) == []


def test_a_probe_shows_its_win_rates_doses_and_words(results, empty, tmp_path):
    dose = results["quality"][-1]["dose"]
    rows = [row | {"dose": dose} for row in results["win_rates"] if row["against"] == "self"]
    empty |= {"win_rates": rows, "notes": ["What it rests on."], "summary": ["It hurts."]}
    text = write_report(Result.model_validate(empty), tmp_path).read_text(encoding="utf-8")
    for part in (
        "<details open>",
        "baseline answers (8 rows)",
        "What it rests on.",
        "<td>10 %</td>",
    ):
        assert part in text
    table = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert len([line for line in table if line.startswith("| ")]) == 2 + 8
    assert "| base | shift | 1 % | 0.490 |" in table[2]
    assert table[-1] == "* It hurts."
    assert [file.name for file in (tmp_path / "plots").iterdir()] == ["probe.png"]


def test_the_page_says_how_sure_its_figures_are(results):
    results["quality"][0]["metrics"]["words"]["num_scored"] = 40
    text = page(results)
    assert "<small>n = 40 / 64</small>" in text
    assert "<strong>0.750</strong>" in text
    assert "<strong>0.490</strong>" not in text
    assert "new training runs" in text
    for row in results["quality"]:
        row["per_training_seed"] = {"quality": [0.5]}
    assert "new training runs" not in page(results)


def test_special_tokens_of_a_canvas_are_set_apart():
    parts = [("a ", False), ("<slack>", True), (" b", False), ("<|eot_id|>", True)]
    assert canvas_parts("a <slack> b<|eot_id|>") == parts
    assert canvas_parts("") == []
