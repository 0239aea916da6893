"""A process that generates with plain `transformers`: a line of JSON in for each batch, a line out.

The threads are set in the environment before torch is imported, which is why this is a process of
its own.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

PARENT = os.getppid()


class TokenTimes(StoppingCriteria):
    """Notes when each token of the batch was there; stops nothing."""

    def __init__(self, num_prompts: int) -> None:
        self.seconds: list[float] = []
        self._began = time.perf_counter()
        self._goes_on = torch.zeros(num_prompts, dtype=torch.bool)

    def __call__(
        self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **_: Any
    ) -> torch.BoolTensor:
        self.seconds.append(time.perf_counter() - self._began)
        if os.getppid() != PARENT:
            sys.exit(
                "the bench is gone"
            )  # it reads stdin only between batches, which may take minutes
        return self._goes_on  # type: ignore[return-value]


def generate(model: Any, prompts: list[list[int]], num_new_tokens: int) -> dict[str, Any]:
    """Continue the prompts, all of one length, as one static batch: greedily and past the end of
    sequence.
    """
    began, cpu_began = time.perf_counter(), time.process_time()
    times = TokenTimes(len(prompts))
    input_ids = torch.tensor(prompts)
    output = model.generate(
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        max_new_tokens=num_new_tokens,
        min_new_tokens=num_new_tokens,
        do_sample=False,
        stopping_criteria=StoppingCriteriaList([times]),
    )
    return {
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "token_seconds": times.seconds,
        "token_ids": output[:, input_ids.shape[1] :].tolist(),
    }


def main(folder: Path, num_threads: int) -> None:
    """Answer requests until stdin ends."""
    disable_progress_bar()
    set_verbosity_error()
    torch.set_num_threads(num_threads)
    torch.set_grad_enabled(False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        model.set_experts_implementation(request["implementation"])
        print(
            json.dumps(generate(model, request["prompts"], request["num_new_tokens"])), flush=True
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
