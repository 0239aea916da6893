"""What a router has done and is doing, as a message for whoever watches."""

import time

from moesaic.v1 import common_pb2, placement_pb2
from services.router.engine.metrics import StepMetrics
from services.router.hosting.messages import progress_message
from services.router.peers.peer import ExpertPeer
from services.router.running import Running


def activity_message(running: Running) -> placement_pb2.GetActivityResponse:
    """The message of GetActivity."""
    metrics = running.engine.metrics
    return placement_pb2.GetActivityResponse(
        instance=running.description.instance,
        clock_nanos=time.monotonic_ns(),
        running_sequences=running.engine.num_running,
        waiting_sequences=running.engine.num_waiting,
        drawn_tokens=metrics.num_drawn,
        parts=_parts(metrics),
        services=[_service(peer, metrics) for peer in running.fleet.peers],
        loads=_loads(running),
        operations=[
            progress_message(one.name, one.progress, None)
            for one in running.fleet.operations.unended
        ],
        token_gaps=[
            placement_pb2.TimeBucket(most_nanos=bound, count=count)
            for bound, count in metrics.token_gaps.buckets()
        ],
    )


def _parts(metrics: StepMetrics) -> common_pb2.PhaseReceipt:
    parts = {f"{part}_nanos": nanos for part, nanos in vars(metrics.parts).items()}
    return common_pb2.PhaseReceipt(**parts, steps=metrics.num_steps)


def _service(peer: ExpertPeer, metrics: StepMetrics) -> placement_pb2.ServiceActivity:
    tally = peer.pace.tally
    return placement_pb2.ServiceActivity(
        address=peer.address,
        frames=tally.frames,
        pairs=tally.pairs,
        queue_nanos=tally.queue_nanos,
        compute_nanos=tally.compute_nanos,
        frames_in_flight=max(0, peer.pace.num_in_flight),
        median_wire_nanos=tally.median_wire_nanos,
        straggler_layers=metrics.stragglers[peer.address],
    )


def _loads(running: Running) -> list[placement_pb2.LayerLoad]:
    """Experts of every layer with their pairs in a mean step, and their replicas."""
    pairs = running.watch.monitor.smoothed_load().tokens
    counts = running.fleet.laid.counts
    layers = running.fleet.wanted.layers
    return [
        placement_pb2.LayerLoad(layer=layer, pairs=pairs[index], replicas=counts[index])
        for index, layer in enumerate(layers)
        if index < len(counts)
    ]
