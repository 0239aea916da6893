"""What pydantic-settings does not promise to keep: each name with its reason, used here alone.

`tests/runtime/test_internals.py` says at once when one of them is gone.
"""

from typing import TypeVar

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

Settings = TypeVar("Settings", bound=BaseSettings)


def settings_from(settings_class: type[Settings], *sources: PydanticBaseSettingsSource) -> Settings:
    """Settings from these sources alone, the first one first. The public way is a method of the
    class, which does not know the arguments of this call.
    """
    return settings_class(_build_sources=(sources, {}))
