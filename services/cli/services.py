"""`moesaic gateway`, `router`, `expert` and `tracing`: one service as one process."""

from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from services.runtime.process import run_service

GATEWAY_EXAMPLES = ("moesaic gateway --listen 0.0.0.0:50051 --insecure --routers router:50052",)
ROUTER_EXAMPLES = (
    "moesaic router --experts 127.0.0.1:50053,127.0.0.1:50054",
    "moesaic router --model /models/OLMoE-1B-7B-0924 --experts dns:///expert:50053",
)
EXPERT_EXAMPLES = ("moesaic expert --listen 0.0.0.0:50053 --insecure --threads 4",)
TRACING_EXAMPLES = ("moesaic tracing --listen 127.0.0.1:4317 --http 127.0.0.1:16686",)


def gateway(arguments: Sequence[str]) -> NoReturn:
    """Run a gateway; ends the process."""
    _run("gateway", "GatewaySettings", arguments, GATEWAY_EXAMPLES)


def router(arguments: Sequence[str]) -> NoReturn:
    """Run a router; ends the process."""
    _run("router", "RouterSettings", arguments, ROUTER_EXAMPLES)


def expert(arguments: Sequence[str]) -> NoReturn:
    """Run an expert service; ends the process."""
    _run("expert", "ExpertSettings", arguments, EXPERT_EXAMPLES)


def tracing(arguments: Sequence[str]) -> NoReturn:
    """Run a tracing service; ends the process."""
    _run("tracing", "TracingSettings", arguments, TRACING_EXAMPLES)


def _run(
    service: str, settings_class: str, arguments: Sequence[str], examples: Sequence[str]
) -> NoReturn:
    settings = import_module(f"services.{service}.settings")
    run_service(service, getattr(settings, settings_class), arguments, examples=examples)
