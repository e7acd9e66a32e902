"""What every test shares: hypothesis without deadlines, a switch for the shape checks."""

from collections.abc import Iterator

import jaxtyping
import pytest
from hypothesis import settings

settings.register_profile("slackdlm", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("slackdlm")


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """Switches the jaxtyping checks off, as they are for users: our own errors are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
