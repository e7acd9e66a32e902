import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from slackdlm.errors import CheckpointError, ConfigError
from slackdlm.training.checkpoints import (
    checkpoint_step,
    discard,
    fault,
    keep_newest,
    latest_complete,
    loading,
    num_writers,
    saving,
    seal,
    written_by,
)


def make(root: Path, step: int, *, sealed: bool = True) -> Path:
    folder = root / f"checkpoint-{step}"
    folder.mkdir()
    (folder / "weights").write_text("0123456789")
    if sealed:
        seal(folder)
    return folder


def test_a_sealed_checkpoint_is_complete(tmp_path: Path) -> None:
    assert fault(make(tmp_path, 1)) is None


def test_a_checkpoint_without_seal_is_torn(tmp_path: Path) -> None:
    assert fault(make(tmp_path, 1, sealed=False)) == "it was not finished"


def test_a_shortened_file_is_noticed(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    (folder / "weights").write_text("0123")
    assert fault(folder) == "weights has 4 of 10 bytes"


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    (folder / "weights").unlink()
    assert fault(folder) == "weights has 0 of 10 bytes"


def test_files_in_folders_are_sealed_too(tmp_path: Path) -> None:
    folder = make(tmp_path, 1, sealed=False)
    (folder / "global_step1").mkdir()
    (folder / "global_step1" / "optimizer").write_text("0123")
    seal(folder)
    assert fault(folder) is None
    (folder / "global_step1" / "optimizer").write_text("012")
    assert fault(folder) == "global_step1/optimizer has 3 of 4 bytes"


def test_a_half_written_seal_is_no_seal(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    (folder / "complete.json").write_text('{"weights": 1')
    assert fault(folder) == "it was not finished"


def test_the_newest_complete_one_is_found_and_torn_ones_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, 9)
    good = make(tmp_path, 10)
    make(tmp_path, 200, sealed=False)
    with caplog.at_level(logging.WARNING):
        assert latest_complete(tmp_path) == good
    assert "checkpoint-200 is torn and skipped: it was not finished" in caplog.text


@pytest.mark.parametrize("name", ["checkpoint-10.draft", "old-checkpoint-10", "checkpoint-"])
def test_a_folder_of_another_name_is_no_checkpoint(name: str) -> None:
    assert checkpoint_step(Path(name)) == -1


def test_a_checkpoint_after_the_last_good_step_is_passed_over(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        make(tmp_path, step)
    found = [latest_complete(tmp_path, up_to=step) for step in (4, 9, 10, 99)]
    assert [None if one is None else checkpoint_step(one) for one in found] == [None, 5, 10, 15]


def test_without_a_complete_one_there_is_none(tmp_path: Path) -> None:
    assert latest_complete(tmp_path / "none") is None


def test_the_newest_are_kept_and_old_torn_ones_removed(tmp_path: Path) -> None:
    for step in (1, 3, 4):
        make(tmp_path, step)
    make(tmp_path, 2, sealed=False)
    make(tmp_path, 5, sealed=False)
    keep_newest(tmp_path, 2)
    assert sorted(checkpoint_step(f) for f in tmp_path.iterdir()) == [3, 4, 5]


def test_torn_ones_stay_where_none_is_complete(tmp_path: Path) -> None:
    folders = [make(tmp_path, step, sealed=False) for step in (1, 2)]
    keep_newest(tmp_path, 1)
    assert all(folder.exists() for folder in folders)


def test_keeping_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="keep_checkpoints: expected at least 1, got 0"):
        keep_newest(tmp_path, 0)


def test_a_discarded_checkpoint_is_gone(tmp_path: Path) -> None:
    folder = make(tmp_path, 1)
    discard(folder)
    discard(folder)
    assert not folder.exists()


def test_a_half_discarded_checkpoint_is_not_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make(tmp_path, 1)
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    discard(folder)
    assert fault(folder) == "it was not finished"


@pytest.mark.parametrize(
    ("context", "reason"), [(loading, "cannot be loaded"), (saving, "cannot be written")]
)
def test_what_libraries_raise_names_the_checkpoint_and_what_we_raise_stays(
    context: Any, reason: str, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint-1"
    with (
        pytest.raises(CheckpointError, match=rf"checkpoint-1: {reason} \(KeyError: 'exp_avg'"),
        context(folder),
    ):
        raise KeyError("exp_avg")
    with pytest.raises(ConfigError, match=r"^another engine$"), context(folder):
        raise ConfigError("another engine")


@pytest.mark.parametrize(
    ("files", "engine", "writers"),
    [
        (["model.safetensors", "optimizer.pt"], None, 0),
        (["pytorch_model_fsdp_0/__0_0.distcp", "optimizer_0/__0_0.distcp"], "FSDP", 0),
        (
            [
                "latest",
                "global_step4/zero_pp_rank_0_mp_rank_00_model_states.pt",
                "global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt",
                "global_step4/bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt",
            ],
            "DEEPSPEED",
            2,
        ),
    ],
)
def test_a_checkpoint_s_files_tell_who_wrote_it(
    files: list[str], engine: str | None, writers: int, tmp_path: Path
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert written_by(tmp_path) == engine
    assert num_writers(tmp_path) == writers
