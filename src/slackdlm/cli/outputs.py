"""May a command write there? Asked before anything is computed; no file that was given is ever replaced."""

from pathlib import Path

from slackdlm.errors import ConfigError


def check_output_file(flag: str, output: Path | None, *inputs: Path | None) -> None:
    """Refuse an output that is a folder, lies in none that can be made, or is one of the files to be read.

    Raises:
        ConfigError: Names the flag and the file.
    """
    if output is None:
        return
    if output.is_dir():
        raise ConfigError(f"{flag} {output}: is a folder; give a file")
    if output.exists() and not output.is_file():
        raise ConfigError(
            f"{flag} {output}: is a device or a pipe; give a file that can be replaced"
        )
    for given in inputs:
        if given is not None and given.exists() and output.exists() and output.samefile(given):
            raise ConfigError(
                f"{flag} {output}: would replace a file to be read; give another {flag}"
            )
    _make(flag, output, output.parent)


def check_output_folder(flag: str, folder: Path) -> None:
    """Make an output folder; ConfigError if it is a file or cannot be made."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{flag} {folder}: is a file; give a folder")
    _make(flag, folder, folder)


def _make(flag: str, output: Path, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{flag} {output}: cannot be written ({error.strerror}); give another {flag}"
        ) from error
