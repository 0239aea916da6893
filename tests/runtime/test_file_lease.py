"""A leased file stays as it is until the lease is given up."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.runtime.file_lease import give_up_lease, granted_seconds, is_held, take_lease


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "file").write_bytes(b"content")
    opened = os.open(tmp_path / "file", os.O_RDONLY)
    if not take_lease(opened):
        pytest.skip("files here cannot be leased")
    give_up_lease(opened)
    yield opened
    os.close(opened)


def test_a_writer_waits_for_the_end_of_a_lease(file: int, tmp_path: Path) -> None:
    path, flags = tmp_path / "file", os.O_WRONLY | os.O_NONBLOCK
    assert take_lease(file) and take_lease(file)
    assert is_held(file)
    assert path.read_bytes() == b"content"
    with pytest.raises(BlockingIOError):
        os.open(path, flags)
    assert not is_held(file)
    assert not take_lease(file)
    give_up_lease(file)
    os.close(os.open(path, flags))


def test_a_file_that_somebody_writes_to_is_not_leased(file: int, tmp_path: Path) -> None:
    with (tmp_path / "file").open("r+b"):
        assert not take_lease(file)
    assert take_lease(file)


def test_a_file_that_other_machines_write_to_is_not_leased(file: int, tmp_path: Path) -> None:
    device = os.fstat(file).st_dev
    mounts = tmp_path / "mounts"
    which = f"36 35 {os.major(device)}:{os.minor(device)} / /mnt rw,noatime shared:1"
    mounts.write_text(f"21 1 0:1 / /proc rw - proc proc rw\n{which} - nfs4 host:/ rw\n")
    assert not take_lease(file, mounts)
    mounts.write_text(f"{which} - ext4 /dev/sda rw\n")
    assert take_lease(file, mounts)
    assert not take_lease(file, tmp_path / "missing")


@pytest.mark.parametrize(
    ("text", "seconds"), [("45\n", 45.0), ("0\n", float("inf")), ("?", 0.0), ("", 0.0)]
)
def test_how_long_a_writer_may_be_kept_waiting(text: str, seconds: float, tmp_path: Path) -> None:
    (tmp_path / "granted").write_text(text)
    assert granted_seconds(tmp_path / "granted") == seconds
    assert granted_seconds(tmp_path / "missing") == 0.0
