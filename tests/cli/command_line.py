"""The command line as a process of its own, and servers that are scripted for it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeVar

import grpc

from services.runtime.server import serving

Servicer = TypeVar("Servicer")


async def start(
    *arguments: str, variables: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """`moesaic` with these arguments, all of its streams in pipes."""
    command = (sys.executable, "-m", "services.cli.main", *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, stderr=pipe, env=os.environ | (variables or {})
    )


async def moesaic(
    *arguments: str, stdin: bytes | str = "", variables: Mapping[str, str] | None = None
) -> tuple[int, str, str]:
    """Run it to its end: exit code, stdout and stderr."""
    process = await start(*arguments, variables=variables)
    try:
        stdout, stderr = await process.communicate(
            stdin if isinstance(stdin, bytes) else stdin.encode()
        )
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, stdout.decode(), stderr.decode()


@asynccontextmanager
async def scripted(
    add: Callable[[Servicer, grpc.aio.Server], None], servicer: Servicer
) -> AsyncIterator[str]:
    """A server of one service, added as the stubs do it; its address."""

    def register(server: grpc.aio.Server) -> None:
        add(servicer, server)

    async with serving(register, listen="127.0.0.1:0", service_names=[], drain_seconds=0) as port:
        yield f"127.0.0.1:{port}"
