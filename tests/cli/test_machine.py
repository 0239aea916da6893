"""What is said of the machine that figures come from."""

import os
from importlib.metadata import version

import pytest

from services.cli.machine import Machine


def test_a_machine_is_described_alike_for_people_and_for_programs() -> None:
    machine = Machine("EPYC", 2, 0.5, "3.11.7", {"moesaic": "0.1", "grpcio": "1.85.1"})
    assert str(machine) == "EPYC, 2 cores, load 0.5, Python 3.11.7, moesaic 0.1, grpcio 1.85.1"
    assert machine.as_object() == {
        "processor": "EPYC",
        "cores": 2,
        "load": 0.5,
        "python": "3.11.7",
        "moesaic": "0.1",
        "grpcio": "1.85.1",
    }


def test_this_machine_has_the_cores_that_the_process_may_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 7})
    here = Machine.here(["pytest"])
    assert (here.cores, here.versions) == (3, {"pytest": version("pytest")})
    assert here.processor
