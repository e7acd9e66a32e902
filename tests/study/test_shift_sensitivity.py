import pytest

from slackdlm.study import shift_sensitivity
from slackdlm.study.toy_language import write_tasks

PROMPTS = [task.prompt for task in write_tasks(3, seed=0)]


def answer(loaded, file):
    shift_sensitivity.answer_grid(
        loaded,
        PROMPTS,
        shift_sensitivity.grid(
            temperatures=(0.0, 1.0), steps=(3,), rates=(0.2,), kinds=("shift",), probed_steps=(3,)
        ),
        file,
        identity={"arm": "ce"},
        canvas_length=6,
        delayed=True,
        num_seeds=2,
    )


@pytest.mark.parametrize("num_runs", [1, 4])
def test_a_decoding_that_was_cut_off_goes_on_where_it_was(toy, tmp_path, num_runs):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    answer(toy, whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3 * 7  # greedy once, sampled twice, both shifted twice
    # Marked, to see that what was complete is not decoded again.
    kept = [line.replace(b'"arm": "ce"', b'"arm": "kept"') for line in lines[: 3 * num_runs]]
    torn = [*kept, *lines[3 * num_runs :][:2], lines[3 * num_runs + 2][:40]]
    cut.with_suffix(".part").write_bytes(b"".join(torn))
    answer(toy, cut)
    assert cut.read_bytes().splitlines(keepends=True) == [*kept, *lines[3 * num_runs :]]
