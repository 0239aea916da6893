"""Requests over HTTP, all at once, by a client that does little but look when tokens come: the
cores it takes are missed by the cluster.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress

from bench.door.timed import Timed
from bench.harness.failure import BenchFailed
from services.runtime.host_port import split_host_port

READ_BYTES = 64 << 10
REQUEST_SECONDS = 600.0
# Stands once in each chunk with tokens; in a text its quotes would be escaped.
TOKEN = b'"finish_reason": null'
# Within so many before the end a stream tells how many tokens there were.
LAST_BYTES = 4096
END = b"\r\n0\r\n\r\n"


class HttpLoad:
    """A client that keeps a connection for each request that it has under way at once."""

    def __init__(self, address: str, *, num_new_tokens: int) -> None:
        self._host, self._port = split_host_port(address)
        self._num_new_tokens = num_new_tokens
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def close(self) -> None:
        """Close all connections."""
        for _, writer in self._idle:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def generate(self, prompts: Sequence[Sequence[int]]) -> Timed:
        """Continue every prompt, greedily and past the end of sequence, all at once.

        Raises BenchFailed when one fails.
        """
        requests = [self._request(prompt) for prompt in prompts]
        began = time.perf_counter()
        async with asyncio.timeout(REQUEST_SECONDS):
            token_seconds = await asyncio.gather(
                *(self._one(request, began) for request in requests)
            )
        num_tokens = self._num_new_tokens * len(prompts)
        first_seconds = [seconds[0] for seconds in token_seconds]
        return Timed(time.perf_counter() - began, num_tokens, first_seconds)

    async def _one(self, request: bytes, began: float) -> list[float]:
        if self._idle:
            reader, writer = self._idle.pop()
        else:
            reader, writer = await asyncio.open_connection(self._host, self._port)
        writer.write(request)
        seconds: list[float] = []
        tail, answer, last = b"", b"", b""
        whole = f'"completion_tokens": {self._num_new_tokens},'.encode()
        while not tail.endswith(END):
            block = await reader.read(READ_BYTES)
            if not block:
                raise BenchFailed(f"the gateway closed a connection after {answer[:300]!r}")
            answer = answer or block
            seen = tail + block
            # The tail is too short to have one of its own.
            seconds += [time.perf_counter() - began] * seen.count(TOKEN)
            last = (last + block)[-LAST_BYTES:]
            tail = seen[-(len(TOKEN) - 1) :]
        if whole not in last:
            raise BenchFailed(f"fewer tokens came over HTTP than asked for: {answer[:300]!r}")
        self._idle.append((reader, writer))
        return seconds

    def _request(self, prompt: Sequence[int]) -> bytes:
        return request_bytes(self._host, prompt, max_tokens=self._num_new_tokens)


def request_bytes(host: str, prompt: Sequence[int], *, max_tokens: int) -> bytes:
    """A request that streams the greedy continuation of a prompt."""
    body = json.dumps(
        {
            "prompt": list(prompt),
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
