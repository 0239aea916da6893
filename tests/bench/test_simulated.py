"""The simulated device's formula, and that it is what a reply is held for."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.rig.peers import connected, decode_step, dispatcher_over
from bench.rig.simulated import DeviceTime, SimulatedDevice, SimulatedExpert, simulated_expert
from bench.scale.load import Load
from services.expert.compute import FrameWork
from services.model.checkpoint import Checkpoint
from tests.checkpoints import save_tiny
from tests.expert.conftest import has_carrier
from tests.expert.expert_client import Carrier


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


@pytest.mark.skipif(not has_carrier(Carrier.NATIVE), reason="needs a compiler")
async def test_a_reply_of_a_native_stream_is_held_as_long_and_has_zeros(tmp_path: Path) -> None:
    model = save_tiny("olmoe", tmp_path)
    checkpoint = Checkpoint.open(model)
    time_taken = DeviceTime(base_nanos=5_000_000, expert_nanos=2_000_000, row_nanos=1_000_000)
    async with (
        simulated_expert(SimulatedExpert(model, time_taken)) as port,
        connected(checkpoint, [f"127.0.0.1:{port}"]) as peers,
    ):
        hidden, index = torch.ones(3, checkpoint.hidden_size), torch.tensor([[0], [1], [0]])
        began = time.monotonic_ns()
        layer, weights = checkpoint.moe_layers[0], torch.ones(3, 1)
        combined = await dispatcher_over(checkpoint, peers).compute(
            decode_step(3), layer, hidden, index, weights, None
        )
        assert time.monotonic_ns() - began >= 12_000_000  # two experts and three rows
        assert combined.shape == hidden.shape and not combined.any()
        assert {stream.transport_kind for stream in peers[0].streams} == {"native"}


def test_each_service_gets_its_rows() -> None:
    load = Load(4, rows_each=64)
    services = load.gate(num_experts=64, seed=0).reshape(-1) % 4
    assert load.total_rows == 256
    assert services.bincount().tolist() == [64] * 4
