import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slackdlm.errors import DataError
from slackdlm.report.page import write_replay
from slackdlm.report.replay import STATES, packed, scenes, script_json
from slackdlm.study.result import Replay

LABELS = {"base": "pre-trained", "slack_ctc": "slack-CTC"}


def scenes_of(results):
    return scenes([Replay.model_validate(row) for row in results["replays"]], LABELS)


def test_arms_on_one_prompt_and_intervention_share_a_scene(results):
    (scene,) = scenes_of(results)
    assert [label for label, _ in scene.tracks] == ["pre-trained", "slack-CTC"]
    assert (scene.title, scene.prompt) == ("no intervention", "tell")
    results["replays"][1] |= {"kind": "shift", "rate": 0.1}
    titles = [scene.title for scene in scenes_of(results)]
    assert titles == ["no intervention", "shifted by one place, 10 % of tokens"]
    results["replays"][0]["frames"] = []
    assert [scene.title for scene in scenes_of(results)] == titles[1:]


def test_cells_are_packed_with_text_state_and_novelty(results):
    frames = packed(scenes_of(results))[0]["tracks"][0]["frames"]
    assert frames[0]["cells"] == [["", 0, 0]] * 3
    assert frames[2]["cells"] == [["a", 1, 0], ["slack", 2, 0], ["b", 4, 1]]
    assert STATES[4] == "displaced"


@given(st.text() | st.sampled_from(["</script>", "<!--", "]]>", "&lt;", "'\"", "\u2028", "🚢"]))
def test_script_json_reads_back_and_cannot_leave_its_element(text):
    written = script_json({"text": text})
    assert json.loads(written) == {"text": text}
    assert not set(written) & set("<>&'\u2028\u2029")


def test_a_replay_page_of_its_own_holds_no_markup_of_the_model(tmp_path, results, monkeypatch):
    rows = results["replays"]
    rows[0] |= {"text": "<b>bold</b>", "prompt": "</script><script>alert(1)</script>"}
    rows[0]["frames"][1]["cells"][0] |= {"token": "<img src=x>", "state": "token"}
    file = tmp_path / "new" / "replay.html"
    write_replay(file, rows, title="<i>title</i>", settings={"steps": 3, "note": "<u>"})
    page = file.read_text(encoding="utf-8")
    for planted in ("<b>bold", "<script>alert", "<img src=x>", "<i>title", "<u>"):
        assert planted not in page
    assert page.count("<script") == 2
    assert 'id="scenes"' in page
    assert [entry.name for entry in file.parent.iterdir()] == ["replay.html"]


def test_a_replay_page_without_frames_or_with_an_unknown_state_is_refused(tmp_path, results):
    rows = [replay | {"frames": []} for replay in results["replays"]]
    with pytest.raises(DataError, match="no frames to replay"):
        write_replay(tmp_path / "replay.html", rows, title="t", settings={})
    results["replays"][0]["frames"][1]["cells"][0]["state"] = "melted"
    with pytest.raises(DataError, match=r"frames\[1\].cells\[0\].state: expected .*got 'melted'"):
        write_replay(tmp_path / "replay.html", results["replays"], title="t", settings={})
    assert not list(tmp_path.iterdir())
