"""Other engines, where the user has them: llama.cpp's llama-bench, and vLLM's latency benchmark."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.harness.programs import output
from bench.real_size import prompt, tokens
from services.runtime.cores import num_cores

NUM_REPETITIONS = 3
RUN_SECONDS = 1200.0


@dataclass(frozen=True)
class PeerResult:
    """What another engine gave `num_requests` at a time, as far as its program says it.

    Tokens a second with the prompts in the time, and while it decodes alone; and milliseconds that
    the long prompt takes.
    """

    engine: str
    num_requests: int
    tokens_per_second: float | None = None
    decode_tokens_per_second: float | None = None
    first_token_ms: float | None = None


async def llama_bench(program: Path, model: Path) -> list[PeerResult]:
    """llama-bench on a GGUF file, one request. Raises BenchFailed when it fails."""
    numbers = {"-p": prompt.NUM_PROMPT_TOKENS, "-n": tokens.NUM_NEW_TOKENS, "-t": num_cores()}
    flags = [text for flag, number in numbers.items() for text in (flag, str(number))]
    repeats = ("-r", str(NUM_REPETITIONS))
    command = (str(program), "-m", str(model), *flags, *repeats, "-o", "json")
    said = await output(*command, seconds=RUN_SECONDS)
    return [llama_result(said)]


def llama_result(said: str | bytes) -> PeerResult:
    """What `llama-bench --output json` said of a run with a prompt, and of one that generates."""
    runs = json.loads(said)
    (prefill,) = (run for run in runs if run["n_prompt"] and not run["n_gen"])
    (decode,) = (run for run in runs if run["n_gen"] and not run["n_prompt"])
    engine = f"llama.cpp {decode['build_number']}, {decode['model_type']}"
    return PeerResult(
        engine,
        1,
        decode_tokens_per_second=decode["avg_ts"],
        first_token_ms=prefill["avg_ns"] / 1e6,
    )


async def vllm_bench(program: Path, model: Path, counts: Sequence[int]) -> list[PeerResult]:
    """`vllm bench latency` on a checkpoint, for numbers of requests, and for the long prompt.

    Raises BenchFailed when it fails.
    """
    found = []
    for count in counts:
        lengths = (count, tokens.NUM_PROMPT_TOKENS, tokens.NUM_NEW_TOKENS)
        seconds = await _vllm_seconds(program, model, *lengths)
        rate = count * tokens.NUM_NEW_TOKENS / seconds
        found.append(PeerResult("vLLM", count, tokens_per_second=rate))
    seconds = await _vllm_seconds(program, model, 1, prompt.NUM_PROMPT_TOKENS, 1)
    return [*found, PeerResult("vLLM", 1, first_token_ms=seconds * 1e3)]


def vllm_seconds(result: str) -> float:
    """The median latency that the file of `vllm bench latency --output-json` has."""
    about: dict[str, Any] = json.loads(result)
    return float(about["percentiles"]["50"])


async def _vllm_seconds(
    program: Path, model: Path, num_requests: int, num_prompt: int, num_new: int
) -> float:
    with tempfile.TemporaryDirectory(prefix="moesaic-bench-") as folder:
        result = Path(folder) / "latency.json"
        lengths = {"batch-size": num_requests, "input-len": num_prompt, "output-len": num_new}
        repeats = {"num-iters-warmup": 1, "num-iters": NUM_REPETITIONS}
        limits = {"max-model-len": 1024, "output-json": result}
        numbers = {**lengths, **repeats, **limits}
        flags = [f"--{name}={value}" for name, value in numbers.items()]
        command = (str(program), "bench", "latency", f"--model={model}", *flags)
        await output(*command, seconds=RUN_SECONDS)
        return vllm_seconds(result.read_text(encoding="utf-8"))
