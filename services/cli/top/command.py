"""`moesaic top`: a picture of a cluster that follows what it does."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.live import Live
from rich.text import Text

from services.cli.command import run_command
from services.cli.found import running_at, with_running_router
from services.cli.hosting.router import RouterFailed
from services.cli.known import NOTHING_KNOWN, Known
from services.cli.report import output
from services.cli.top.figures import Figures, figures
from services.cli.top.look import look
from services.cli.top.picture import picture
from services.cli.top.settings import TopSettings
from services.runtime.settings import load

EXAMPLES = (
    "moesaic top",
    "moesaic top --once",
    "moesaic top --router 10.0.0.7:50052 --http 10.0.0.5:8000 --interval 5",
    "moesaic top --once --json",
)


def top(arguments: Sequence[str]) -> int:
    """Run the command; its exit code."""
    settings = load(TopSettings, arguments, "moesaic top", examples=EXAMPLES)
    settings, known = _completed(with_running_router(settings))
    return run_command(_top(settings, known), command="top")


def _completed(settings: TopSettings) -> tuple[TopSettings, Known]:
    """With what is known of the cluster where it runs here: its HTTP, other routers, names."""
    cluster = running_at(settings.router)
    if cluster is None:
        return settings, NOTHING_KNOWN
    routers = [one.address for one in cluster.services if one.service == "router"]
    found = {
        "http": cluster.http or None,
        "other_routers": [one for one in routers if one != settings.router],
    }
    missing = {name: one for name, one in found.items() if name not in settings.model_fields_set}
    return settings.model_copy(update=missing), Known(cluster.names)


async def _top(settings: TopSettings, known: Known) -> None:
    console = output()
    if settings.json_output or settings.once or not console.is_terminal:
        async for seen in _seen(settings, known):
            if isinstance(seen, RouterFailed):
                raise seen
            if settings.json_output:
                print(json.dumps(asdict(seen)), flush=True)
            else:
                console.print(picture(seen, width=console.width))
    else:
        await _follow(settings, known, console)


async def _follow(settings: TopSettings, known: Known, console: Console) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(Text(f"looking at {settings.router} …"), refresh=True)
        async for seen in _seen(settings, known):
            if isinstance(seen, RouterFailed):  # it may be back at the next look
                live.update(Text(str(seen)), refresh=True)
            else:
                shown = picture(seen, width=console.width, height=console.height)
                live.update(shown, refresh=True)


async def _seen(settings: TopSettings, known: Known) -> AsyncIterator[Figures | RouterFailed]:
    """What each interval showed, or why it did not, without an end unless once is enough. Raises
    RouterFailed where the first look fails.
    """
    before = await look(settings)
    while True:
        await asyncio.sleep(settings.interval)
        try:
            now = await look(settings)
            yield figures(before, now, known)
            before = now
        except RouterFailed as failed:
            yield failed
        if settings.once:
            return
