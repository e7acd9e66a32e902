"""Every command that README and docs show is one that the command line takes, and links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from slackdlm.cli import _parser

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = r"^(?:    )?(?:(?:accelerate launch|torchrun) .*)?(?:slackdlm|-m slackdlm\.cli) (\w.*)$"


def shown_commands() -> list[str]:
    """Whole lines and the README's table; fragments in running text are not held to it."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    text = re.sub(r"\\\n *", "", text)  # commands over several lines
    return re.findall(COMMAND, text, re.MULTILINE) + re.findall(
        r"^\| `slackdlm ([^`]*)`", text, re.MULTILINE
    )


@pytest.mark.parametrize("command", shown_commands())
def test_a_shown_command_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        _parser().parse_args(shlex.split(command.removesuffix(" ..."), comments=True))
    except SystemExit:
        # A command that is shown in part may lack what it needs, and nothing else.
        error = capsys.readouterr().err
        is_part = command.endswith(" ...") and "arguments are required" in error
        assert is_part, error


def test_there_are_commands_to_look_at() -> None:
    assert len(shown_commands()) > 25


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_to_a_file(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), link
