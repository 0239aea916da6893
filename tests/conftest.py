"""What holds for every test, and what tests of several folders share."""

import os
import signal
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from bench.rig.certificates import Certificates

# Before grpc is imported: services that are stopped in the middle of calls, as here, are no news.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# Before torch is imported: the bits of a product by several threads depend on its number of rows on
# some processors.
os.environ["OMP_NUM_THREADS"] = "1"
# What tests talk to is on this machine, and what they record goes where they say.
for name in list(os.environ):
    if name.lower().endswith("_proxy") or name.startswith("OTEL_"):
        del os.environ[name]

# Nothing is kept for later outside of a test's folder.
os.environ["MOESAIC_EXPERT_HASH_CACHE"] = "off"
os.environ["MOESAIC_ROUTER_HASH_CACHE"] = "off"

# No test finds a cluster that somebody runs on this machine, and none leaves anything in a home.
_home = tempfile.TemporaryDirectory(prefix="moesaic-tests-")
os.environ |= {"XDG_CACHE_HOME": _home.name, "XDG_RUNTIME_DIR": ""}

# A shell has what it starts in the background ignore SIGINT, and so would the commands that tests
# interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's matter.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> "Certificates":
    """A set that no test changes."""
    from bench.rig.certificates import Certificates  # most tests need none

    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def gradients_as_before() -> Iterator[None]:
    """A router turns gradients off for its thread, for good; here that is the thread of every other
    test too.
    """
    import torch  # most tests need none

    was_enabled = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(was_enabled)
