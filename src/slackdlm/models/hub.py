"""Why did the hub not give something? In a few words: its own errors fill a screen."""

from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from slackdlm.errors import one_line

HUB_ERRORS = (OSError, ValueError, HfHubHTTPError)
"""What a download raises."""


def hub_reason(error: BaseException) -> str:
    """One line about a failed download."""
    told: dict[type[BaseException] | tuple[type[BaseException], ...], str] = {
        GatedRepoError: "access must be asked for on its page first, then set HF_TOKEN",
        RepositoryNotFoundError: "the hub has none of that name, or it is private and HF_TOKEN is not set",
        RevisionNotFoundError: "it has no such revision",
        OfflineModeIsEnabled: "HF_HUB_OFFLINE is set and it is not in the local cache",
        LocalEntryNotFoundError: "the hub cannot be reached and it is not in the local cache",
        EntryNotFoundError: "it holds no such file",
        HFValidationError: "that is no name the hub knows",
        HfHubHTTPError: "the hub answered with an error",
    }
    return next(
        (reason for kind, reason in told.items() if isinstance(error, kind)),
        f"{type(error).__name__}: {one_line(error, longest=120)}",
    )
