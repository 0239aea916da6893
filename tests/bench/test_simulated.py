"""The simulated device's formula, and that it is what a reply is held for."""

import time

import numpy as np
import torch

from bench.rig.simulated import DeviceTime, SimulatedDevice
from bench.scale.load import Load
from services.expert.compute import FrameWork


def work(num_rows: int, slots: list[int]) -> FrameWork:
    return FrameWork(torch.ones(num_rows, 4), np.arange(len(slots)) % num_rows, np.array(slots))


def test_a_batch_takes_base_experts_and_rows() -> None:
    assert (
        DeviceTime(base_nanos=1_000, expert_nanos=100, row_nanos=1).nanos(num_active=3, num_rows=7)
        == 1_307
    )


def test_the_formula_says_itself() -> None:
    assert str(DeviceTime(500_000, 20_000, 1_000)) == "500 + 20·active experts + 1·rows µs"


async def test_results_are_zeros_for_each_pair_of_each_frame() -> None:
    device = SimulatedDevice(DeviceTime(), 4, torch.float32)
    computed = await device.compute([work(2, [5, 6, 5]), work(1, [6])])
    assert [rows.shape for rows in computed.rows] == [(3, 4), (1, 4)]
    assert not any(rows.any() for rows in computed.rows)
    assert computed.num_active == 2


async def test_a_reply_is_held_at_least_as_long_as_the_formula_says() -> None:
    device = SimulatedDevice(
        DeviceTime(base_nanos=5_000_000, row_nanos=1_000_000), 4, torch.float32
    )
    began = time.monotonic_ns()
    await device.compute([work(3, [0, 1, 2])])
    assert time.monotonic_ns() - began >= 8_000_000  # a lower bound: slow machines pass too


def test_each_service_gets_its_rows() -> None:
    load = Load(4, rows_each=64)
    services = load.gate(num_experts=64, seed=0).reshape(-1) % 4
    assert load.total_rows == 256
    assert services.bincount().tolist() == [64] * 4
