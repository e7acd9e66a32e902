"""What happened at which step? One JSON object a line, cut back when a run resumes."""

import json
import os
from pathlib import Path
from typing import Any

from slackdlm.errors import DataError


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one record; non-finite numbers are refused, as JSON has none."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All records; an unfinished last line, left by a killed process, is dropped.

    Raises:
        DataError: If any other line is not JSON.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not valid JSON ({error.msg})") from error
    return records


def cut_back(path: Path, *, step: int) -> None:
    """Drop the records after ``step``: a resumed run's journal is that of an unbroken one."""
    kept = [record for record in read(path) if record["step"] <= step]
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, allow_nan=False) + "\n" for record in kept)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
