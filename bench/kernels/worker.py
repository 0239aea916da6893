"""A process that runs with the compiled kernels or, by MOESAIC_KERNELS=off, without: a line of JSON
in, a line out.

Kernels are chosen as the services are imported and threads before torch is, which is why this is a
process of its own.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.kernels.model import LocalModel
from bench.kernels.operations import Operations, cpu_micros
from services import kernels
from services.model.checkpoint import Checkpoint
from services.runtime.allocator import keep_freed_memory


def logits(checkpoint: Checkpoint, dtype: torch.dtype, request: dict[str, Any]) -> None:
    """Write the logits of a text that is given to a file."""
    model = LocalModel(checkpoint, dtype, checkpoint.moe_layers)
    torch.save(model.forced_logits(request["prompts"], request["text"]), request["file"])


def main(folder: Path, dtype: torch.dtype) -> None:
    """Answer requests until stdin ends."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    keep_freed_memory()
    checkpoint = Checkpoint.open(folder)
    operations = Operations(checkpoint, dtype)
    calls: dict[str, Callable[[], object]] = {}
    print(json.dumps(kernels.level()), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = None
        if "rows" in request:
            calls = operations.of(request["rows"], request["keys"])
            answer = list(calls)
        elif "operation" in request:
            answer = cpu_micros(calls[request["operation"]])
        else:
            logits(checkpoint, dtype, request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), getattr(torch, sys.argv[2]))
