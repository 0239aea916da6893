"""Bringing tensors from the device to the host's memory without blocking the event loop."""

import asyncio

import torch


async def to_host(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The tensors in the host's memory: themselves on a CPU, else copies that an event is awaited
    for.

    A plain copy would block the loop until the device is done, and no other lane could use the
    time.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return tensors
    copies = tuple(
        torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(
            tensor, non_blocking=True
        )
        for tensor in tensors
    )
    copied = torch.cuda.Event()
    copied.record()
    await asyncio.to_thread(copied.synchronize)
    return copies
