"""How much memory experts may take when nobody says."""

import os
from pathlib import Path

import torch

# The rest is for the process itself, rows in flight and the page cache that experts are read
# through. It is a limit: services of one machine take no more together than the model has, unless
# they host experts twice.
HOST_SHARE = 0.6
DEVICE_SHARE = 0.8
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def default_expert_memory(device: torch.device, limit_file: Path = CONTAINER_LIMIT) -> int:
    """A generous share of the device's memory, or of the host's or container's for a
    CPU, in bytes; the container's is read from `limit_file`.
    """
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory * DEVICE_SHARE)
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(min(host, _container_limit(limit_file) or host) * HOST_SHARE)


def _container_limit(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
