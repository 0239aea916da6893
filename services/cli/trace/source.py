"""Gets a trace by Jaeger's query API, which the tracing service has too, or out of a file."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from services.cli.failed_calls import unreachable
from services.cli.trace.model import Trace
from services.runtime.text_files import Unreadable, read_text
from services.wire.errors import InvalidRequest, NotFound, Unavailable


class QueryClient:
    """Asks one query API; `timeout_seconds` are for each question. `verbose` adds to what is said
    of one that is not there what the library says of it.
    """

    def __init__(self, url: str, *, timeout_seconds: float, verbose: bool = False) -> None:
        self._url, self._timeout_seconds, self._verbose = url, timeout_seconds, verbose

    async def trace(self, trace_id: str) -> Trace:
        """One trace; raises NotFound where it is not there and Unavailable where nobody answers."""
        return _only(
            await self._get(f"/api/traces/{quote(trace_id, safe='')}", {}), f"no trace {trace_id}"
        )

    async def latest(self, service: str, tags: Mapping[str, str]) -> Trace:
        """The latest trace with a span of the service that has all the tags; raises as above."""
        parameters = {"service": service, "limit": "1", "lookback": "48h"}
        if tags:
            parameters["tags"] = json.dumps(tags)
        conditions = "".join(f" with {key}={value}" for key, value in tags.items())
        return _only(
            await self._get("/api/traces", parameters), f"no trace of {service}{conditions}"
        )

    async def _get(self, path: str, parameters: Mapping[str, str]) -> Any:
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                aiohttp.ClientSession() as session,
                session.get(f"{self._url}{path}", params=parameters) as response,
            ):
                return await response.json(content_type=None)
        except TimeoutError as error:
            raise Unavailable(f"{self._url} does not answer in time") from error
        except aiohttp.ClientError as error:
            words = await unreachable("tracing", self._url, str(error), verbose=self._verbose)
            raise Unavailable(words) from error
        except ValueError as error:
            raise InvalidRequest(
                f"{self._url} does not answer as Jaeger's query API does"
            ) from error


def read_trace(path: Path, trace_id: str | None) -> Trace:
    """The trace of a file, or of several the one with the id, else the latest.

    Raises InvalidRequest for a file of anything else, and NotFound where the trace is not in it.
    """
    try:
        document = json.loads(read_text(path))
    except Unreadable as error:
        raise InvalidRequest(f"cannot read {error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is no JSON: {error}") from error
    if (
        isinstance(document, dict) and "spans" in document
    ):  # one trace alone, as some viewers write it
        document = {"data": [document]}
    try:
        traces = [trace for trace in _traces(document) if trace_id in (None, trace.trace_id)]
    except InvalidRequest as error:
        raise InvalidRequest(f"{path}: {error}") from error
    if not traces:
        raise NotFound(f"no such trace in {path}")
    return max(traces, key=lambda trace: trace.started)


def _only(document: Any, otherwise: str) -> Trace:
    errors = document.get("errors") if isinstance(document, dict) else None
    if errors:
        first = errors[0] if isinstance(errors, list) else errors
        message = str(first.get("msg", first)) if isinstance(first, dict) else str(first)
        raise NotFound(otherwise) if "not found" in message else InvalidRequest(message)
    traces = _traces(document)
    if not traces:
        raise NotFound(otherwise)
    return max(traces, key=lambda trace: trace.started)


def _traces(document: Any) -> list[Trace]:
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
        raise InvalidRequest(
            "this is no answer in Jaeger's JSON: it has no list of traces as `data`"
        )
    return [Trace.parse(one) for one in data]
