"""Settings: flags, variables and defaults, and what is refused before the port opens."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from services.gateway.settings import GatewaySettings
from services.runtime.settings import load


def test_the_defaults_serve_the_embedded_model_to_this_machine_alone() -> None:
    settings = GatewaySettings()
    assert settings.listen.startswith("127.0.0.1:")
    assert (settings.model / "tokenizer.json").is_file()
    assert settings.requests_per_second == 0


def test_a_flag_wins_over_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOESAIC_GATEWAY_MAX_BATCH_REQUESTS", "3")
    monkeypatch.setenv("MOESAIC_GATEWAY_MAX_WAITING_REQUESTS", "4")
    monkeypatch.setenv("MOESAIC_GATEWAY_ROUTERS", "a:1,dns:///b:2")
    settings = load(
        GatewaySettings, ["--max-batch-requests", "5", "--model", "/models/x"], "moesaic gateway"
    )
    assert (settings.max_batch_requests, settings.max_waiting_requests) == (5, 4)
    assert settings.routers == ["a:1", "dns:///b:2"]
    assert settings.model == Path("/models/x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("routers", []),
        ("routers", ["localhost"]),
        ("routers", ["dns:///name"]),
        ("routers", ["name:99999"]),
        ("model_name", ""),
        ("max_prompt_bytes", 0),
        ("max_waiting_requests", 0),
        ("max_waiting_tokens", -1),
        ("max_batch_requests", 0),
        ("max_batch_tokens", 0),
        ("max_paced_requests", 0),
        ("max_clients", 0),
        ("requests_per_second", -1),
        ("requests_per_second", "inf"),
        ("default_timeout_seconds", 0),
        ("max_timeout_seconds", "nan"),
        ("router_grace_seconds", -1),
        ("tokeniser_threads", 0),
        ("drain_seconds", -1),
    ],
)
def test_a_bad_value_is_refused_by_the_fields_name(field: str, value: Any) -> None:
    with pytest.raises(ValidationError) as failure:
        GatewaySettings(**{field: value})
    assert {error["loc"][0] for error in failure.value.errors()} == {field}


def test_a_default_timeout_above_the_most_is_refused_by_both_names() -> None:
    with pytest.raises(
        ValidationError, match=r"default_timeout_seconds \(9\) is above max_timeout_seconds \(8\)"
    ):
        GatewaySettings(default_timeout_seconds=9, max_timeout_seconds=8)
