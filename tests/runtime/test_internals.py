"""Each name that pydantic-settings does not promise to keep is there, and does what we take it
for.
"""

import inspect

import pytest
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict

from services.runtime.pydantic_internals import settings_from


class Example(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EXAMPLE_")

    first: int = 0
    second: int = 0
    third: int = 0


def test_settings_can_be_given_their_sources() -> None:
    assert "_build_sources" in inspect.signature(BaseSettings.__init__).parameters


def test_the_first_source_wins_and_there_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXAMPLE_THIRD", "3")
    first, second = {"first": 1}, {"first": 2, "second": 2}
    sources = (InitSettingsSource(Example, values) for values in (first, second))
    assert settings_from(Example, *sources).model_dump() == {"first": 1, "second": 2, "third": 0}
