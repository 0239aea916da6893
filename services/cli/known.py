"""What receipts do not say of a cluster themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from moesaic.v1 import common_pb2


@dataclass(frozen=True)
class Known:
    """The `names` of services by their addresses, and how many
    layers of the model have experts, 0 where that is not known.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    num_moe_layers: int = 0

    def name(self, address: str) -> str:
        """What a service is called; its address where it has no other name."""
        return self.names.get(address, address)

    def slowest(self, receipt: common_pb2.LatencyReceipt) -> str:
        """Which service was waited for, and how often; empty for none."""
        if not receipt.slowest_service:
            return ""
        num_layers = self.num_moe_layers * (receipt.prefill.steps + receipt.decode.steps)
        last = receipt.slowest_service_layers
        of = f" of {num_layers:,}" if num_layers >= last else ""
        return f"{self.name(receipt.slowest_service)}, straggler in {last:,}{of} layers"


NOTHING_KNOWN = Known()
