"""The transport bench itself, on tiny sizes and with real processes; and how benches are called."""

import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest

from bench.harness import plot
from bench.harness.command import numbers
from bench.harness.progress import Stages
from bench.harness.statistics import Spread
from bench.rig.kernel import keep_on
from bench.rig.transports import GRPC, NATIVE
from bench.transport import __main__ as transport
from bench.transport import floor
from bench.transport.__main__ import num_rounds_of
from bench.transport.bursts import BURST, UNCOUNTED, places
from bench.transport.floor import COMPILERS, NoFloor, compiled_floor, floor_running
from bench.transport.tables import ECHO, FLOOR, FRAMES, IN_C, MIB, Case

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, COMPILERS)), reason="there is no C compiler"
)


async def test_transport_compares_the_stream_over_each_transport_with_both_echoes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # checkpoints and the floor are made below the current folder
    (any_cores, *_) = places()
    monkeypatch.setattr(transport, "places", lambda: [any_cores])
    options = Namespace(quick=True, sizes=(4096, 4 * MIB), services=(1,), transports=(GRPC, NATIVE))
    report = await transport.measure(options, Stages())
    samples = report.samples["4096 bytes, 1 services, any cores, ms"]
    assert {*samples} - {*IN_C} == {ECHO, GRPC, NATIVE, FRAMES[NATIVE]}
    num_samples = num_rounds_of(4096, 1, quick=True) * (BURST - UNCOUNTED)
    assert all(len(taken) == num_samples for taken in samples.values())
    assert all(sample > 0 for taken in samples.values() for sample in taken)
    (table,) = report.tables
    assert "SIMULATED" in table.title
    sizes = [row[0] for row in table.rows]
    assert sizes == ["4 KiB"] * len(samples) + ["4 MiB"] * (len(samples) - 1)
    assert {row[3] for row in table.rows} >= {"tensor stream, grpc", "tensor stream, native"}
    assert table.rows[-1][3] == "tensor stream, native, frame by frame"  # more than one frame
    assert all(isinstance(row[6], Spread) for row in table.rows if row[3] != ECHO)


def test_processes_may_run_anywhere_again_after_they_were_kept_on_a_core() -> None:
    usable = os.sched_getaffinity(0)
    for cores in places():
        keep_on(cores.client, [os.getpid()], usable)
        assert os.sched_getaffinity(0) == (usable if cores.client is None else {cores.client})
    keep_on(None, [os.getpid()], usable)
    assert os.sched_getaffinity(0) == usable


async def test_without_a_compiler_the_floor_is_left_out_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.transport.floor.shutil.which", lambda name: None)
    with pytest.raises(NoFloor, match=r"^there is no C compiler \(cc, gcc, clang\)$"):
        await compiled_floor()


@needs_compiler
async def test_what_a_compiler_refuses_is_said_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(floor, "SOURCE", tmp_path / "floor.c")
    (tmp_path / "floor.c").write_text("this is no C\nnor is this\n")
    with pytest.raises(NoFloor, match=r"could not compile floor\.c: [^\n]+$"):
        await compiled_floor()


@needs_compiler
@pytest.mark.parametrize("path", IN_C.values())
@pytest.mark.parametrize("messages", [[(1, 1)], [(4200, 9000)], [(3 * MIB, 5), (7, 3 * MIB)] * 2])
async def test_the_floor_has_every_byte_exchanged_however_large_and_however_often(
    path: str, messages: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with floor_running(await compiled_floor(), path, messages, num_services=3) as client:
        for _ in range(2):
            taken = await client.burst()
            assert len(taken) == BURST - UNCOUNTED and min(taken) > 0


def test_case_without_a_floor_has_no_ratio_to_it() -> None:
    case = Case(4096, 1, "any", {ECHO: [2.0, 4.0], GRPC: [3.0, 8.0]})
    assert case.ratio(GRPC, FLOOR) is None
    assert case.ratio(ECHO, ECHO) is None
    ratio = case.ratio(GRPC, ECHO)
    assert ratio is not None and ratio.median == 1.75


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
    assert num_rounds_of(8 * MIB, 8, quick=False) * (BURST - UNCOUNTED) >= 40
