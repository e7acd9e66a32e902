"""Files and folders as other tools write them; every one must give the rows that were put in."""

import csv
import gzip
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict

from slackdlm.errors import DataError
from slackdlm.training.rows import read_rows

ROWS: list[dict[str, Any]] = [
    {"prompt": "2024-01-01 00:00:00", "response": "012"},
    {"prompt": "NA", "response": 'a "b", c\nd'},
    {"prompt": "é", "response": ""},
]


def lines(rows: list[dict[str, Any]] = ROWS) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def save_csv(file: Path, delimiter: str) -> None:
    with file.open("w", newline="", encoding="utf-8-sig") as out:
        writer = csv.DictWriter(out, ["prompt", "response"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def save_arrow(file: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(file), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path], object]] = {
    "d.jsonl": lambda file: file.write_text(lines()),
    "lines.json": lambda file: file.write_text(lines()),
    "list.json": lambda file: file.write_text(json.dumps(ROWS)),
    "pretty.json": lambda file: file.write_text(json.dumps(ROWS, indent=2)),
    "d.jsonl.gz": lambda file: file.write_bytes(gzip.compress(lines().encode())),
    "d.csv": lambda file: save_csv(file, ","),
    "d.tsv": lambda file: save_csv(file, "\t"),
    "d.parquet": lambda file: pq.write_table(pa.Table.from_pylist(ROWS), file),
    "d.arrow": save_arrow,
    "saved": lambda folder: Dataset.from_list(ROWS).save_to_disk(folder),
    "saved_as_tensors": lambda folder: Dataset.from_list(ROWS).with_format("torch").save_to_disk(folder),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_any_kind_gives_its_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    assert [row.columns for row in read_rows(tmp_path / name)] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.zip", b"PK", r"d\.zip: a file of this kind is not read; unpack it or save"),
        ("d.jsonl.zst", b"x", r"zst: a file of this kind is not read"),
        ("d.pkl", b"x", r"pkl: a file of this kind is not read"),
        ("d.parquet.gz", b"x", r"gz: a file of this kind is not read"),
        ("d.jsonl.gz", b"x", r"gz: cannot be read \(Not a gzipped file"),
        ("d.csv", b"a,b\n1\n", r"d\.csv:2: expected a cell for each of the 2 different names"),
        ("d.csv", b"a,a\n1,2\n", r"d\.csv:2: expected a cell for each of the 2 different names"),
        ("d.csv", b'a\n"1\n', r"d\.csv:\d: not valid CSV"),
        ("d.json", b'{\n "rows": []\n}', r"d\.json:1: not valid JSON .*or one list of objects"),
        ("d.json", b"[1]", r"d\.json: item 1: expected a JSON object, got int"),
        ("d.json", b'[{"a": 1}', r"d\.json: not valid JSON .*expected one list"),
        ("d.json", b"prompt: x", r"d\.json:1: not valid JSON"),
    ],
)
def test_a_file_that_holds_no_rows_is_one_clear_error(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_rows(tmp_path / name))


def test_a_folder_s_split_is_read_and_the_rest_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "train.jsonl").write_text(lines(ROWS[:1]))
    (tmp_path / "test.jsonl").write_text(lines(ROWS[1:]))
    (tmp_path / "README.md").write_text("# data\n")
    (tmp_path / "notes.txt").write_text("notes\n")
    with caplog.at_level(logging.INFO, logger="slackdlm.training"):
        (row,) = read_rows(tmp_path)
    assert row == (ROWS[0], f"{tmp_path / 'train.jsonl'}:1")
    assert caplog.messages == [
        f"{tmp_path}[train]: reads train.jsonl; other splits: test; files not used: notes.txt"
    ]
    assert [row.columns for row in read_rows(tmp_path, split="test")] == ROWS[1:]
    with pytest.raises(
        DataError, match=r"there is no such split, only train, test; set data\.split"
    ):
        list(read_rows(tmp_path, split="validation"))


def test_files_of_a_folder_may_differ_in_their_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(ROWS[:1]))
    more = ROWS[1] | {"source": "x"}
    (tmp_path / "b.jsonl").write_text(lines([more]))
    assert [row.columns for row in read_rows(tmp_path)] == [ROWS[0], more]


def test_a_saved_dictionary_of_splits_is_read_by_split(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = DatasetDict({"train": Dataset.from_list(ROWS[:1]), "dev": Dataset.from_list(ROWS[1:])})
    splits.save_to_disk(tmp_path)
    with caplog.at_level(logging.INFO, logger="slackdlm.training"):
        (row,) = read_rows(tmp_path)
    assert row == (ROWS[0], f"{tmp_path}[train]:1")
    assert caplog.messages == [f"{tmp_path}[train]: reads train; other splits: dev"]
    assert [row.columns for row in read_rows(tmp_path, split="dev")] == ROWS[1:]
    with pytest.raises(DataError, match=r"\[test\]: there is no such split, only train, dev"):
        list(read_rows(tmp_path, split="test"))
