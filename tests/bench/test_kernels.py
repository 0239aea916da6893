"""The kernels' bench itself: real workers with and without kernels, on the shipped model."""

from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.kernels import __main__ as kernels
from bench.kernels import error as kernel_error
from bench.kernels.__main__ import Case
from bench.kernels.error import TRANSFORMERS, compared, passages, transformers_logits
from bench.kernels.load import kernels_running
from bench.kernels.model import LocalModel
from bench.kernels.operations import TRUNK_KERNELS, Operations, cpu_micros
from services.kernels.level import AVAILABLE, level
from services.model.checkpoint import Checkpoint
from services.runtime.embedded_model import EMBEDDED_MODEL
from tests.checkpoints import save_tiny

needs_kernels = pytest.mark.skipif(not AVAILABLE, reason="there was no compiler")


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NUM_PROMPTS": 2, "PROMPT_TOKENS": 8, "TEXT_TOKENS": 3}.items():
        monkeypatch.setattr(kernel_error, name, value)


@needs_kernels
async def test_every_operation_is_timed_with_kernels_and_without(
    monkeypatch: pytest.MonkeyPatch, few_tokens: None
) -> None:
    case = Case("shipped", EMBEDDED_MODEL, torch.bfloat16)
    monkeypatch.setattr(kernels, "cases", lambda: [case])
    monkeypatch.setattr(kernels, "QUICK_ROUNDS", 2)
    report = await kernels.measure(Namespace(quick=True, rows=(1, 3), kinds=False), Stages())
    assert report.notes == [f"the kernels' instruction set is {level()}"]
    (samples,) = report.samples.values()
    assert samples.keys() >= {
        "norm",
        "gate",
        "rotary",
        "attend",
        "attention layer",
        "experts",
        "scatter",
        "combine",
        TRUNK_KERNELS,
    }
    taken = [
        times
        for by_rows in samples.values()
        for by_name in by_rows.values()
        for times in by_name.values()
    ]
    assert all(len(times) == 2 and min(times) > 0 for times in taken)
    error, timed = report.tables
    assert len(timed.rows) == 2 * len(samples)
    assert [row[0] for row in error.rows] == [
        TRANSFORMERS,
        "router and experts, bfloat16, torch",
        "router and experts, bfloat16, kernels",
    ]
    assert all(isinstance(row[1], float) and 0 < row[1] < 1 for row in error.rows), (
        "bfloat16 is neither float32 nor another model"
    )
    by_torch, by_kernels = (row[-1] for row in error.rows[1:])
    assert isinstance(by_torch, float) and isinstance(by_kernels, float)
    assert by_torch > by_kernels, "the worker without kernels rounds as transformers does"


@needs_kernels
async def test_experts_of_other_kinds_are_timed_by_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "models", lambda: {"tiny": save_tiny("gpt_oss", tmp_path)})
    monkeypatch.setattr(kernels, "QUICK_ROUNDS", 2)
    report = await kernels.measure(Namespace(quick=True, rows=(1, 3), kinds=True), Stages())
    (timed,) = report.tables
    assert [row[:2] for row in timed.rows] == [("expert", 1), ("expert", 3)]
    (samples,) = report.samples.values()
    assert all(len(times) == 2 and min(times) > 0 for times in samples["expert"][3].values())


async def test_without_kernels_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.kernels.AVAILABLE", False)
    with pytest.raises(BenchFailed, match="no compiled kernels"):
        async with kernels_running(EMBEDDED_MODEL, torch.float32):
            pass


def test_a_model_in_one_process_computes_what_transformers_computes(few_tokens: None) -> None:
    prompts, text = passages()
    checkpoint = Checkpoint.open(EMBEDDED_MODEL)
    ours = LocalModel(checkpoint, torch.float32, checkpoint.moe_layers)
    expected = transformers_logits(EMBEDDED_MODEL, torch.float32, prompts, text)
    for _ in range(2):
        assert (ours.forced_logits(prompts, text) - expected).abs().max() < 1e-4
    other = [[17, *tokens[1:]] for tokens in text]
    forced = ours.forced_logits(prompts, other)
    assert (forced[:, 0] - expected[:, 0]).abs().max() < 1e-4
    assert (forced[:, 1] - expected[:, 1]).abs().max() > 0.1


def test_operations_may_be_repeated_without_changing_what_they_compute() -> None:
    calls = Operations(Checkpoint.open(EMBEDDED_MODEL), torch.bfloat16).of(2)
    first, second = calls["attention layer"](), calls["attention layer"]()
    assert torch.equal(first[0], second[0])  # type: ignore[index]
    assert torch.equal(calls["trunk"](), calls["trunk"]())  # type: ignore[arg-type]
    once, again = calls[TRUNK_KERNELS](), calls[TRUNK_KERNELS]()
    assert torch.equal(once[-1], again[-1])  # type: ignore[index]


def test_the_trunks_kernels_are_those_of_every_layer_and_the_head() -> None:
    checkpoint = Checkpoint.open(EMBEDDED_MODEL)
    results = Operations(checkpoint, torch.bfloat16).of(2, num_keys=5)[TRUNK_KERNELS]()
    assert isinstance(results, list)
    assert len(results) == 4 * len(checkpoint.moe_layers) + 2
    assert results[-1].shape == (2, checkpoint.config.vocab_size)


def test_a_call_counts_cpu_time_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0

    def call() -> None:
        nonlocal clock
        clock += 5_000

    monkeypatch.setattr("bench.kernels.operations.time.thread_time_ns", lambda: clock)
    assert cpu_micros(call) == 5


def test_an_error_is_that_of_every_logit_against_float32() -> None:
    exact = torch.tensor([[[1.0, 0.0], [0.0, 4.0]]])
    near, far = exact + torch.tensor([0.0, 1.0]), exact + torch.tensor([2.0, 0.0])
    near[0, 0] = torch.tensor([0.0, 1.0])
    table = compared(exact, {TRANSFORMERS: far, "ours": near, "same": far})
    errors = [(mean, largest, others) for _, mean, _, largest, others, _, _ in table.rows]
    assert errors == [(1, 2, 0), (0.75, 1, 50), (1, 2, 0)]
    assert [row[5:] for row in table.rows] == [(None, None), (50, 0), (0, 100)]
