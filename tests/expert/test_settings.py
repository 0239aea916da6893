"""Settings: defaults, units, shares, and what is refused before the port opens."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from services.expert.memory import default_expert_memory
from services.expert.settings import ExpertSettings
from services.runtime.server import MAX_MESSAGE_BYTES
from services.runtime.settings import load


def test_the_defaults_serve_the_embedded_model_to_this_machine_alone() -> None:
    settings = ExpertSettings()
    assert settings.listen.startswith("127.0.0.1:")
    assert (settings.model / "model.safetensors").is_file()
    assert list(settings.preloaded_of(16)) == []


def test_memory_is_written_with_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESAIC_EXPERT_EXPERT_MEMORY", "512MiB")
    assert load(ExpertSettings, [], "moesaic expert").expert_memory == 512 << 20
    flags = [
        "--expert-memory",
        "1.5GB",
        "--cores",
        str(min(os.sched_getaffinity(0))),
        "--preload",
        "1/2",
    ]
    settings = load(ExpertSettings, flags, "moesaic expert")
    assert settings.expert_memory == 1_500_000_000
    assert settings.cores == [min(os.sched_getaffinity(0))]
    assert settings.preload == "1/2"


@pytest.mark.parametrize(("num_experts", "num_shares"), [(16, 2), (8, 3), (3, 5), (1, 1)])
def test_the_shares_are_even_and_together_everything(num_experts: int, num_shares: int) -> None:
    shares = [
        ExpertSettings(preload=f"{index}/{num_shares}").preloaded_of(num_experts)
        for index in range(num_shares)
    ]
    assert sorted(expert for share in shares for expert in share) == list(range(num_experts))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert ExpertSettings(preload="all").preloaded_of(num_experts) == range(num_experts)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"preload": "2/2"}, "the share's index must be below 2"),
        ({"preload": "some"}, "pattern"),
        ({"preload": "1/0"}, "pattern"),
        ({"device": "gpu"}, "pattern"),
        ({"dtype": "int8"}, "float32"),
        ({"threads": 0}, "greater than 0"),
        ({"cores": []}, "at least 1"),
        ({"cores": [100_000]}, "cores .100000. are not among the usable"),
        ({"expert_memory": "lots"}, "byte"),
        ({"max_waiting_pairs": 0}, "greater than 0"),
        ({"max_frame_bytes": MAX_MESSAGE_BYTES}, "less than or equal to"),
        ({"drain_seconds": float("inf")}, "finite"),
        ({"evacuate_seconds": float("nan")}, "finite"),
        ({"evacuate_seconds": -1}, "greater than or equal to 0"),
        ({"drain_seconds": -1}, "greater than or equal to 0"),
    ],
)
def test_senseless_settings_are_refused(fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        ExpertSettings(**fields)


def test_without_a_figure_experts_take_three_fifths_of_what_the_container_may(
    tmp_path: Path,
) -> None:
    limit = tmp_path / "memory.max"
    host = default_expert_memory(torch.device("cpu"), limit)
    assert host == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 5
    for text, expected in (("max\n", host), ("1000000\n", 600_000), (f"{1 << 60}\n", host)):
        limit.write_text(text)
        assert default_expert_memory(torch.device("cpu"), limit) == expected
