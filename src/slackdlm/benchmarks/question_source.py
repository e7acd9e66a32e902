"""Where are the questions? In a file, in a data set of the hub, or under the name of a published version."""

import re
from pathlib import Path
from typing import Final, NamedTuple

from huggingface_hub import hf_hub_download

from slackdlm.errors import DataError
from slackdlm.models.hub import HUB_ERRORS, hub_reason
from slackdlm.records import KNOWN_VERSIONS, check_version

_ADDRESS = re.compile(r"hf://(datasets|spaces)/([^/@\s]+/[^/@\s]+)(?:@([^/\s]+))?/(.+)")


class HubFile(NamedTuple):
    """One file on the hub."""

    kind: str
    """``dataset`` or ``space``."""
    repository: str
    revision: str | None
    """Branch, tag or commit; ``None``: the newest."""
    name: str


KNOWN_SOURCES: Final[dict[str, HubFile]] = {
    "arena-hard-v2.0": HubFile(
        "dataset", "lmarena-ai/arena-hard-auto", None, "data/arena-hard-v2.0/question.jsonl"
    ),
    "arena-hard-v0.1": HubFile(
        "dataset", "lmarena-ai/arena-hard-auto", None, "data/arena-hard-v0.1/question.jsonl"
    ),
    "mt-bench": HubFile("space", "lmsys/mt-bench", None, "data/mt_bench/question.jsonl"),
    "alpaca-eval": HubFile(
        "dataset",
        "tatsu-lab/alpaca_eval",
        "2edc6fad8be6b14ea7230aabfd08188da6b8b814",
        "alpaca_eval.json",
    ),
}
"""Name -> its question file; pinned by the sha256 of `items.KNOWN_VERSIONS`, or by its commit."""


def question_file(source: str | Path) -> Path:
    """The local file of a source; from the hub it is downloaded, into its cache.

    Args:
        source: A path, ``hf://datasets/OWNER/NAME[@REVISION]/FILE``, or one of `KNOWN_SOURCES` where no file has
            that name.

    Raises:
        DataError: If the address cannot be read, the hub does not give the file, or it is not the published one.
    """
    text = str(source)
    if Path(text).exists() or not (text in KNOWN_SOURCES or text.startswith("hf:")):
        return Path(text)
    wanted = KNOWN_SOURCES.get(text) or _parsed(text)
    try:
        found = Path(
            hf_hub_download(
                wanted.repository,
                wanted.name,
                repo_type=wanted.kind,
                revision=wanted.revision,
            )
        )
    except HUB_ERRORS as error:
        raise DataError(
            f"{text}: {wanted.name} of {wanted.repository} cannot be downloaded: {hub_reason(error)}; download it by "
            "hand and give its path"
        ) from error
    if text in KNOWN_VERSIONS.values():
        check_version(found, text)
    return found


def _parsed(address: str) -> HubFile:
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        raise DataError(
            f"{address}: expected hf://datasets/OWNER/NAME/FILE, with @REVISION behind NAME if wanted, a path, or one "
            f"of {', '.join(KNOWN_SOURCES)}"
        )
    kind, repository, revision, name = parts.groups()
    return HubFile(kind.removesuffix("s"), repository, revision, name)
