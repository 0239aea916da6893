"""What the dispatcher passes by is counted, and recorded while somebody asks for it."""

import numpy as np
import pytest

from services.router.load.watch import RoutingWatch
from services.wire.errors import Overloaded

MOE_LAYERS = (2, 5)


@pytest.fixture
def watch() -> RoutingWatch:
    return RoutingWatch(MOE_LAYERS, num_experts=4, top_k=2, window_steps=16)


def note_step(watch: RoutingWatch, *experts: int, is_decode: bool = True) -> None:
    for shift, layer in enumerate(MOE_LAYERS):
        watch.note(0, layer, (np.array(experts) + shift) % 4, is_decode=is_decode)


def test_layers_are_counted_in_their_order_among_those_with_experts(watch: RoutingWatch) -> None:
    note_step(watch, 0, 1)
    note_step(watch, 0, 1, 0, 2, is_decode=False)
    assert watch.monitor.load().tokens.tolist() == [[1.5, 1, 0.5, 0], [0, 1.5, 1, 0.5]]
    assert watch.monitor.load(is_decode=True).tokens.tolist() == [[1, 1, 0, 0], [0, 1, 1, 0]]
    assert watch.num_steps == 2


def test_after_a_restart_nothing_has_been_seen(watch: RoutingWatch) -> None:
    note_step(watch, 0, 1)
    watch.restart()
    assert watch.monitor.num_steps() == watch.num_steps == 0


def test_one_recording_at_a_time_is_made_of_what_passes_meanwhile(watch: RoutingWatch) -> None:
    note_step(watch, 0, 1)
    recorder = watch.record(max_bytes=1000)
    with pytest.raises(Overloaded, match="recorded already"):
        watch.record(max_bytes=1000)
    note_step(watch, 2, 3, is_decode=False)
    watch.stop_recording()
    note_step(watch, 0, 1)
    recording = recorder.take("law")
    assert recording.step(0).tolist() == [[[2, 3]], [[3, 0]]]
    assert recording.is_decode.tolist() == [False]
    watch.record(max_bytes=1000)
