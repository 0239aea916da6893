"""What is counted: every frame once, every pair once, each with what became of it."""

from pathlib import Path

import torch

from services.expert import metrics
from tests.expert.expert_client import Carrier, expert_service
from tests.recorded_metrics import Attributes, RecordedMetrics, having


async def test_frames_and_pairs_are_counted_by_outcome(olmoe: Path, carrier: Carrier) -> None:
    recorded = RecordedMetrics()
    async with expert_service(
        olmoe, carrier, meter=recorded.meter, preload="0/2", expert_memory="1MiB"
    ) as service:
        recorded.read()  # what others in this process have counted
        stream, rows = service.open_stream(), torch.randn(2, 32)
        await stream.send(
            0, rows, [(0, 0), (1, 0), (1, 3)], weights=[1.0, 0.5, 0.5]
        )  # pairs count, not sums
        await stream.send(1, rows, [(0, 1), (1, 7), (1, 6)])
        await stream.send(2, rows, [(0, 0)], remaining_nanos=0)
        await stream.send(3, rows, [(0, 0)], layer=5)
        for _ in range(4):
            await stream.reply()
        found = recorded.read()
        assert by_outcome(found[metrics.FRAMES]) == {
            "computed": 1,
            "not_hosted": 1,
            "expired": 1,
            "invalid": 1,
        }
        assert by_outcome(found[metrics.PAIRS]) == {"computed": 4, "not_hosted": 2, "expired": 1}
        # The two frames came together, or not.
        assert sum(found[metrics.BATCHES].values()) in (1, 2)
        assert found[metrics.HOSTED_EXPERTS] == {having(): 12}
        assert found[metrics.MEMORY_USED] == {having(): 12 * service.parts.bank.slot_bytes}
        assert found[metrics.MEMORY_LIMIT] == {having(): 1 << 20}
        assert found[metrics.WAITING_PAIRS] == {having(): 0}


def by_outcome(values: dict[Attributes, float]) -> dict[object, float]:
    """What was counted of each outcome; of others nothing was."""
    return {dict(attributes)["outcome"]: value for attributes, value in values.items() if value}
