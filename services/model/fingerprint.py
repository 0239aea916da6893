"""What the bits of a computation depend on besides its inputs, in one line of text."""

import platform
from pathlib import Path

import torch

from services import kernels
from services.model.expert_kind import who_computes


def numerics_fingerprint(device: torch.device, experts: kernels.ExpertKind | None) -> str:
    """Name device kind, torch build, instruction sets (torch's and that of our kernels), the kind
    of experts that our kernel computes, None where torch does, and number of threads.

    Where two processes have the same fingerprint, the same computation gives the same bits in both.
    """
    build = f"torch {torch.__version__} {str(torch.version.git_version)[:12]}"
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        return (
            f"cuda {torch.cuda.get_device_name(device)} sm_{major}{minor}; {build} cuda "
            f"{torch.version.cuda}"
        )
    instructions = torch.backends.cpu.get_cpu_capability()
    used = f"{instructions}, kernels {kernels.level()}, experts {who_computes(experts)}"
    return f"cpu {_processor()} {used}; {build}; {torch.get_num_threads()} threads"


def _processor() -> str:
    # Linear algebra libraries choose their kernels by vendor and family too, not by instruction set
    # alone.
    names = {"vendor_id": "", "cpu family": "", "model": ""}
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    for line in lines:
        key, _, value = line.partition(":")
        if names.get(key.strip()) == "":
            names[key.strip()] = value.strip()
    return "-".join((platform.machine(), *filter(None, names.values())))
