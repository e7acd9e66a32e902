"""May a command write there? Asked before anything is computed; nothing is made, no file that was given is replaced."""

from pathlib import Path

from slackdlm.atomic import check_writable
from slackdlm.errors import ConfigError


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
