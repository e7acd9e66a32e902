"""Is there what a command is to read, and may it write? Asked before torch is imported, which takes seconds."""

from pathlib import Path

from slackdlm.atomic import check_writable
from slackdlm.errors import ConfigError, DataError


def check_model(*names: str | None) -> None:
    """CheckpointError unless each is a folder that is there, or of a hub id's form."""
    from slackdlm.models.hub import is_hub_id

    for name in names:
        if name is not None:
            is_hub_id(name)


def check_recipe(file: Path | None) -> None:
    """ConfigError unless the recipe's file is there."""
    if file is not None and not file.exists():
        raise ConfigError(f"{file}: there is no such recipe file")


def check_files(*files: Path | None) -> None:
    """DataError unless each file is there."""
    for file in files:
        if file is not None and not file.is_file():
            what = "it is a folder" if file.is_dir() else "there is no such file"
            raise DataError(f"{file}: {what}")


def refuse_beside(first: str, *others: tuple[str, object]) -> None:
    """ConfigError if a flag that would be ignored beside ``first`` is given, that is neither None nor False."""
    for flag, value in others:
        if value is not None and value is not False:
            raise ConfigError(f"{flag}: has no effect {first}; leave it out")


def check_output_file(flag: str, output: Path | None, *others: Path | None) -> None:
    """Refuse an output that cannot be written, or is another file that the command reads or writes.

    Raises:
        ConfigError: Names the flag and the file.
    """
    if output is None:
        return
    _check(flag, output, output, others)


def check_output_folder(flag: str, folder: Path, *others: Path | None) -> None:
    """ConfigError as `check_output_file`, for a folder of files, which need not be there yet."""
    _check(flag, folder, folder / "file", others)


def _check(flag: str, output: Path, file: Path, others: tuple[Path | None, ...]) -> None:
    if any(_is_same(output, other) for other in others if other is not None):
        raise ConfigError(
            f"{flag} {output}: would replace another of the files given; give another {flag}"
        )
    try:
        check_writable(file)
    except OSError as error:
        raise ConfigError(
            f"{flag} {output}: cannot be written ({error.strerror}); give another {flag}"
        ) from error


def _is_same(output: Path, other: Path) -> bool:
    if output.exists() and other.exists():
        return output.samefile(other)
    return output.resolve() == other.resolve()
