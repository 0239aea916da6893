"""Where the logs of a local cluster are, and for how long."""

import os
import tempfile
from pathlib import Path

import pytest

from services.cli.child import ServiceFailed
from services.cli.log_folder import NUM_KEPT, log_folder
from services.cli.report import Report
from services.wire.errors import BadState


def fail() -> None:
    """As a cluster does one of whose services fails."""
    with log_folder(Report(), verbose=False) as folder:
        assert folder is not None
        (folder / "expert-0.log").write_text("why")
        raise ExceptionGroup("tasks", [ServiceFailed("gone")])


def test_logs_are_kept_where_a_service_failed_and_the_newest_few_of_them(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = cache / "logs"
    logs.mkdir(parents=True)
    ended = [f"2026-01-{day:02}-101010-{2**22 + 1}-x" for day in range(1, NUM_KEPT + 3)]
    of_a_running_one = f"2026-01-01-000000-{os.getpid()}-x"
    for name in (*ended, of_a_running_one):
        (logs / name).mkdir()
    with pytest.raises(ExceptionGroup):
        fail()
    left = {folder.name for folder in logs.iterdir()}
    (new,) = left - {*ended, of_a_running_one}
    assert (logs / new / "expert-0.log").read_text() == "why"
    assert f"the services' logs are in {logs / new}" in "".join(capsys.readouterr().err)
    assert left == {new, of_a_running_one, *ended[3:]}


def test_nothing_is_left_of_a_cluster_that_ended_well_or_was_told_to(cache: Path) -> None:
    with log_folder(Report(), verbose=False):
        pass
    with pytest.raises(KeyboardInterrupt), log_folder(Report(), verbose=False):
        raise KeyboardInterrupt
    assert list((cache / "logs").iterdir()) == []


def test_logs_are_among_temporary_files_where_the_cache_cannot_be_written(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.write_text("no folder")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with log_folder(Report(), verbose=False) as folder:
        assert folder is not None
        assert folder.parent == tmp_path
        folder.rmdir()  # as whoever tidies such folders does
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with (
        pytest.raises(BadState, match="no folder for logs can be made: No such file"),
        log_folder(Report(), verbose=False),
    ):
        pass
