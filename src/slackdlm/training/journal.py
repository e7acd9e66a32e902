"""What happened at which step? One JSON object a line, cut back when a run resumes."""

import json
from pathlib import Path
from typing import Any, cast

from slackdlm import strict_json
from slackdlm.atomic import write_text
from slackdlm.errors import DataError, one_line


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one record; non-finite numbers are refused, as JSON has none."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """All records; an unfinished last line, left by a killed process, is dropped.

    Raises:
        DataError: If any other line is no JSON object with its ``step``.
    """
    if not path.is_file():
        return []
    *lines, _unfinished = path.read_bytes().split(b"\n")
    records: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        try:
            record = strict_json.parse(line.decode("utf-8"))
        except ValueError as error:
            raise DataError(f"{where}: not valid JSON ({one_line(error)})") from error
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected a JSON object, got {type(record).__name__}")
        records.append(_checked(cast("dict[str, Any]", record), where=where))
    return records


def _checked(record: dict[str, Any], *, where: str) -> dict[str, Any]:
    """A record with a whole ``step``, and losses that are numbers."""
    for key in ("loss", "eval_ce", "eval_objective"):
        value = record.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise DataError(f"{where}: expected a number in {key!r}, got {type(value).__name__}")
    if type(record.get("step")) is not int:
        raise DataError(f"{where}: expected a whole number in 'step'; restore the file")
    return record


def cut_back(path: Path, *, step: int) -> None:
    """Drop the records after ``step``: a resumed run's journal is that of an unbroken one."""
    kept = [record for record in read(path) if record["step"] <= step]
    write_text(path, "".join(json.dumps(record, allow_nan=False) + "\n" for record in kept))
