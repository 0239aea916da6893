"""Each name that others do not promise to keep is there, and does what we take it for."""

import asyncio
import inspect
import select
import socket

import pytest
from aiohttp import web
from pydantic_settings import BaseSettings, InitSettingsSource, SettingsConfigDict

from services.gateway.http.aiohttp_internals import hold_headers
from services.runtime.event_loop import NEW_LOOP, NewLoop
from services.runtime.loop_internals import descriptor_of
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


def test_a_response_can_hold_its_headers_until_its_body_begins() -> None:
    response = web.StreamResponse()
    assert response._send_headers_immediately
    hold_headers(response)
    assert not response._send_headers_immediately


@pytest.mark.parametrize("new_loop", {asyncio.new_event_loop, NEW_LOOP})
def test_a_loop_has_a_descriptor_that_is_readable_while_it_has_something_to_read(
    new_loop: NewLoop,
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        descriptor = descriptor_of(loop)
        assert descriptor is not None
        polled = select.poll()
        polled.register(descriptor, select.POLLIN)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            read = asyncio.Event()

            def take() -> None:
                ours.recv(1)
                read.set()

            loop.add_reader(ours, take)
            await asyncio.sleep(0)
            assert not polled.poll(0)
            theirs.send(b"x")
            assert polled.poll(1000)
            await read.wait()
            assert not polled.poll(0)
            loop.remove_reader(ours)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def test_a_loop_without_a_descriptor_has_none() -> None:
    loop = asyncio.new_event_loop()
    loop.close()  # and its descriptor with it
    assert descriptor_of(loop) is None
