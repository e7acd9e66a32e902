"""Is there what a command is to read? Asked before torch is imported, which takes seconds."""

from pathlib import Path

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
