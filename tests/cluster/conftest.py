"""One cluster of the shipped model for the tests that only use it."""

from pathlib import Path

import pytest

import services.model
from tests.checkpoints import save_tiny


@pytest.fixture(autouse=True)
def _gradients_as_before(gradients_as_before: None) -> None:
    """For all tests of this folder."""


@pytest.fixture(scope="session")
def tessera() -> Path:
    """The embedded model."""
    return Path(services.model.__file__).parent / "tessera"


@pytest.fixture(scope="session")
def olmoe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny checkpoint, quick to serve."""
    return save_tiny("olmoe", tmp_path_factory.mktemp("models") / "olmoe")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how near the cluster came to the reference, family by family."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, value in report.user_properties:
            if name == "parity":
                terminalreporter.write_line(
                    f"{report.nodeid.rpartition('[')[2].rstrip(']')}: {value}"
                )
