"""All that OpenTelemetry's variables ask of a process."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_OFF,
    DEFAULT_ON,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)

from services.runtime.otlp.destination import ExportTarget, Signal
from services.runtime.otlp.metric_settings import MetricSettings
from services.runtime.otlp.variables import OtelVariables
from services.runtime.settings import refuse

SAMPLERS = {
    "always_on": ALWAYS_ON,
    "always_off": ALWAYS_OFF,
    "parentbased_always_on": DEFAULT_ON,
    "parentbased_always_off": DEFAULT_OFF,
}
RATIO_SAMPLERS = {
    "traceidratio": TraceIdRatioBased,
    "parentbased_traceidratio": ParentBasedTraceIdRatio,
}
# How the SDK batches, bounds and describes its own spans; ours are written elsewhere, and small.
NOT_FOLLOWED = (
    *("OTEL_BSP_", "OTEL_SPAN_", "OTEL_ATTRIBUTE_", "OTEL_EVENT_", "OTEL_LINK_"),
    *("OTEL_PYTHON_EXPORTER_OTLP_", "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS"),
)


@dataclass(frozen=True)
class Telemetry:
    """Where traces and metrics go, None where nobody asked for them; `remarks` are to be logged.

    `attributes` describe the process, beside and before what it says of itself.
    """

    is_disabled: bool = False
    traces: ExportTarget | None = None
    metrics: ExportTarget | None = None
    sampler: Sampler = DEFAULT_ON
    metric_settings: MetricSettings = field(default_factory=MetricSettings)
    attributes: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def load_telemetry(prog: str, environment: Mapping[str, str] = os.environ) -> Telemetry:
    """What the variables ask for; prints a line for each that cannot be followed and must be, and
    exits with 2.
    """
    variables = OtelVariables(environment)
    telemetry = _read(variables, environment)
    if variables.refusals:
        refuse(prog, list(dict.fromkeys(variables.refusals)))
    return telemetry


def _read(variables: OtelVariables, environment: Mapping[str, str]) -> Telemetry:
    if variables.flag("OTEL_SDK_DISABLED"):
        return Telemetry(is_disabled=True)
    configured = variables.find("OTEL_CONFIG_FILE", "OTEL_EXPERIMENTAL_CONFIG_FILE")
    if configured is not None:
        variables.refuse(
            configured,
            "such a file is not read; it should be unset, and variables say what it says",
        )
    traces, metrics = (
        ExportTarget.read(signal, variables) for signal in (Signal.TRACES, Signal.METRICS)
    )
    name = variables.text("OTEL_SERVICE_NAME")
    attributes = variables.attributes("OTEL_RESOURCE_ATTRIBUTES") | (
        {"service.name": name} if name else {}
    )
    sampler = DEFAULT_ON if traces is None else _sampler(variables)
    metric_settings = MetricSettings() if metrics is None else MetricSettings.read(variables)
    if traces is not None:
        _remark_on_the_rest(variables, environment)
    remarks = tuple(dict.fromkeys(variables.remarks))
    return Telemetry(False, traces, metrics, sampler, metric_settings, attributes, remarks)


def _sampler(variables: OtelVariables) -> Sampler:
    default = "parentbased_always_on"
    name = variables.preference((*SAMPLERS, *RATIO_SAMPLERS), default, "OTEL_TRACES_SAMPLER")
    if name in RATIO_SAMPLERS:
        return RATIO_SAMPLERS[name](variables.number(1.0, "OTEL_TRACES_SAMPLER_ARG", most=1.0))
    return SAMPLERS[name]


def _remark_on_the_rest(variables: OtelVariables, environment: Mapping[str, str]) -> None:
    propagators = variables.find("OTEL_PROPAGATORS")
    if propagators is not None and "tracecontext" not in propagators.value.lower():
        variables.remark(propagators, "it should have 'tracecontext'", "tracecontext")
    for name in sorted(environment):
        if name.startswith(NOT_FOLLOWED) and (found := variables.find(name)):
            variables.remarks.append(f"{found.name} is not followed here")
