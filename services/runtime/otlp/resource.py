"""What a process says of itself in all that it exports."""

from collections.abc import Mapping

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.version import __version__

SDK = {
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": __version__,
}


def describe_process(service_name: str, instance: str, attributes: Mapping[str, str]) -> Resource:
    """The process of a service; what `attributes` say goes before that."""
    own = {
        "service.namespace": "moesaic",
        "service.name": service_name,
        "service.instance.id": instance,
    }
    return Resource({**SDK, **own, **attributes})


def encoded(resource: Resource) -> bytes:
    """As OTLP has it."""
    attributes = [
        KeyValue(key=key, value=AnyValue(string_value=str(value)))
        for key, value in resource.attributes.items()
    ]
    return resource_pb2.Resource(attributes=attributes).SerializeToString()
