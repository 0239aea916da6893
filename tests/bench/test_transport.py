"""The transport bench itself, on tiny sizes and with real processes; and how benches are called."""

from argparse import Namespace
from pathlib import Path

import pytest

from bench.harness import plot
from bench.harness.command import numbers
from bench.harness.progress import Stages
from bench.transport import __main__ as transport
from bench.transport.__main__ import MIB, num_rounds_of


async def test_transport_compares_the_stream_with_the_echo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # checkpoints are made below the current folder
    options = Namespace(quick=True, sizes=(4096, 4 * MIB), services=(1,))
    report = await transport.measure(options, Stages())
    samples = report.samples["4096 bytes, 1 services, ms"]
    assert len(samples["tensor"]) == len(samples["echo"]) == num_rounds_of(4096, 1, quick=True)
    assert all(sample > 0 for taken in samples.values() for sample in taken)
    assert [row[0] for row in report.tables[0].rows] == ["4 KiB", "4 MiB"]
    assert "SIMULATED" in report.tables[0].title


def test_without_matplotlib_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda name: None)
    assert transport.main(["--quick"]) == 1
    assert "pip install" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "0", "4,x", "-1"])
def test_a_list_of_numbers_is_refused_with_a_reason(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        transport.main(["--sizes", text])
    assert "no list of whole numbers above 0" in capsys.readouterr().err


def test_a_list_of_numbers_has_commas_between_them() -> None:
    assert numbers("1, 16,64") == (1, 16, 64)


def test_large_tensors_get_fewer_rounds_but_enough_for_a_spread() -> None:
    assert num_rounds_of(4096, 1, quick=False) > num_rounds_of(MIB, 1, quick=False)
    assert num_rounds_of(8 * MIB, 8, quick=False) >= 10
