"""Shows the table of the chaos run at the end, since its gaps are measured and not asserted."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print every table that a test has left."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == "chaos":
                terminalreporter.write(text)
