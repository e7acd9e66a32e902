"""The few exceptions users see. Each message says where, what was expected, what came, what to do."""


class SlackDLMError(Exception):
    """Base of every error this package raises on purpose; the command line prints it and exits 2."""


class ConfigError(SlackDLMError, ValueError):
    """A recipe, a flag or an argument is wrong."""


class DataError(SlackDLMError, ValueError):
    """A file or a sample the user gave cannot be used."""


class CheckpointError(SlackDLMError, ValueError):
    """A model folder or training checkpoint is missing, torn or of another run."""
