"""The flags that say how tokens are drawn, made from the table of the sampling parameters."""

from typing import Any, TypeVar

from pydantic import Field, create_model
from pydantic_settings import BaseSettings

from moesaic.v1 import generation_pb2
from services.wire.sampling import PARAMETERS, Parameter, is_whole

Settings = TypeVar("Settings", bound=BaseSettings)


def with_sampling_flags(settings_class: type[Settings]) -> type[Settings]:
    """The class with a setting for each parameter, but for those of which it has its own.

    What is None is left to the server.
    """
    own = settings_class.model_fields
    fields: dict[str, Any] = {
        name: _setting(name, parameter) for name, parameter in PARAMETERS.items() if name not in own
    }
    return create_model(
        settings_class.__name__,
        __base__=settings_class,
        __module__=settings_class.__module__,
        __doc__=settings_class.__doc__,
        **fields,
    )


def say_sampling(request: generation_pb2.GenerateRequest, settings: BaseSettings) -> None:
    """Write into the request how tokens are to be drawn, as far as the settings say it."""
    for name in PARAMETERS:
        value = getattr(settings, name)
        if value is not None:
            setattr(request.sampling, name, value)


def _setting(name: str, parameter: Parameter) -> tuple[Any, Any]:
    allowed = parameter.allowed
    limits: dict[str, Any] = {
        "gt" if allowed.is_above else "ge": allowed.least,
        "le": allowed.most,
        # A whole number is finite, and pydantic does not ask.
        **({} if is_whole(name) else {"allow_inf_nan": False}),
    }
    kind = int | None if is_whole(name) else float | None
    return kind, Field(None, description=parameter.meaning, **limits)
