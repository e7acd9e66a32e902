"""``import slackdlm`` is instant, and every public name is the object it stands for."""

import subprocess
import sys

import pytest

import slackdlm


def test_every_public_name_can_be_imported() -> None:
    assert sorted(slackdlm.__all__) == slackdlm.__all__
    for name in slackdlm.__all__:
        assert getattr(slackdlm, name).__name__ == name


def test_importing_the_package_alone_does_not_import_torch() -> None:
    code = "import sys, slackdlm; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'sampler_'"):
        _ = slackdlm.sampler_
