"""The native thread answers what it answers as Python does, bit for bit."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from moesaic.v1 import expert_pb2
from services.wire.frames import encode_cancel
from tests.checkpoints import save_tiny
from tests.expert.conftest import has_carrier
from tests.expert.expert_client import Carrier, Client, encoded, expert_service

pytestmark = pytest.mark.skipif(not has_carrier(Carrier.NATIVE), reason="needs a compiler")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TRACED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def messages(dtype: torch.dtype) -> Iterator[bytes]:
    """Usual frames and such as differ from them in one way, none of which ends the stream."""
    draw, torch_draw = random.Random(3), torch.Generator().manual_seed(3)

    def rows(count: int, width: int = 32) -> torch.Tensor:
        return torch.randn(count, width, generator=torch_draw).to(dtype)

    for number in range(40):
        count = draw.randrange(1, 9)
        pairs = [
            (draw.randrange(count), draw.randrange(8)) for _ in range(draw.randrange(1, 3 * count))
        ]
        yield encoded(
            number,
            rows(count),
            pairs,
            layer=draw.randrange(3),
            requests=[draw.getrandbits(40) for _ in range(draw.randrange(3))],
            traceparent=draw.choice(("", TRACED, "ä", TRACED + "-x")),
            checksum=draw.random() < 0.5,
        )
    few = [(0, 1), (1, 7), (1, 3)]
    usual = encoded(50, rows(2), few, checksum=True)
    frame = expert_pb2.DispatchRequest.FromString(usual).frame
    inner = frame.SerializeToString()
    yield usual[:-1] + bytes([usual[-1] ^ 1])  # a wrong checksum
    yield expert_pb2.DispatchRequest(frame=frame).SerializeToString() + b"\xa0\x01\x05"  # a field
    yield b"\x0a" + _varint(len(inner) + 3) + inner + b"\x80\x02\x01"  # another, inside
    yield encoded(51, rows(2), few, weights=[0.5, 0.25, -1.0])
    yield encoded(52, rows(2), few, layer=7)
    yield encoded(53, rows(2), [(0, 8)])
    yield encoded(54, rows(2), [(2, 0)], checksum=True)
    yield encoded(55, rows(2), [])
    yield encoded(56, rows(0), [])
    yield encoded(57, rows(2, 31), few)
    yield encoded(58, rows(2).to(torch.bfloat16), few)
    yield encoded(59, rows(2).to(torch.float16), few)
    yield encoded(60, rows(2), few, remaining_nanos=0)
    yield encoded(61, rows(2), few, remaining_nanos=(1 << 64) - 1)
    yield encoded(62, rows(300), [(row, 5) for row in range(300)])  # torch's
    yield encoded(63, rows(3), [(0, 6), (2, 1)], layer=0)  # an expert that is not hosted
    yield encoded(64, rows(1), [(0, 6)], layer=0, checksum=True)
    long = [(row, row % 8) for row in range(2500)]  # in a message that has memory of its own
    yield encoded(65, rows(2500), long, checksum=True)


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7]) if number > 0x7F else bytes([number])


async def answers(service: Client, dtype: torch.dtype) -> list[bytes]:
    """What the service answers, one after the other, without what is measured."""
    stream = service.open_stream()
    received = []
    await stream.receive()
    await stream.call.write(encode_cancel([1, 2]))
    for data in messages(dtype):
        await stream.call.write(data)
        answer = await stream.call.read()
        response = expert_pb2.DispatchResponse.FromString(answer)
        response.reply.ClearField("timings")
        received.append(response.SerializeToString(deterministic=True))
    await stream.call.done_writing()
    return received


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize(
    ("family", "batch_invariant"), [("olmoe", False), ("olmoe", True), ("gpt_oss", False)]
)
async def test_the_same_messages_get_the_same_bytes_from_both(
    tmp_path: Path, family: str, name: str, batch_invariant: bool
) -> None:
    model = save_tiny(family, tmp_path)
    heard: dict[Carrier, list[bytes]] = {}
    for carrier in (Carrier.GRPC, Carrier.NATIVE):
        options: dict[str, Any] = {
            "dtype": name,
            "batch_invariant": batch_invariant,
            "expert_memory": "1MiB",
        }
        async with expert_service(model, carrier, **options) as service:
            keys = [(layer, expert) for layer in range(3) for expert in range(8)]
            await service.load(*[key for key in keys if key != (0, 6)])
            heard[carrier] = await answers(service, DTYPES[name])
            computed = service.parts.plane.counts().computed_frames
        assert (computed > 20) == (carrier is Carrier.NATIVE)
    assert heard[Carrier.NATIVE] == heard[Carrier.GRPC]


@pytest.mark.parametrize(
    "data",
    [b"", b"\x0a\x05abc", b"\xff\xff", encoded(1, torch.zeros(1, 32), [(0, 0)])[:-1]],
    ids=["empty", "cut", "noise", "shortened"],
)
async def test_what_is_no_message_ends_the_stream_in_the_same_words(
    olmoe: Path, data: bytes
) -> None:
    words = set()
    for carrier in (Carrier.GRPC, Carrier.NATIVE):
        async with expert_service(olmoe, carrier, preload="all") as service:
            stream = service.open_stream()
            await stream.receive()
            await stream.call.write(data)
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await stream.call.read()
            words.add((ended.value.code(), ended.value.details()))
    assert len(words) == 1
