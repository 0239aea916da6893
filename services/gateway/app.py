"""The gateway's life: read the checkpoint, open the port, find a router, serve, drain, stop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, nullcontext

from services.gateway import refusals, stays
from services.gateway.admission import Admission
from services.gateway.checkpoint import TextCheckpoint, read_checkpoint
from services.gateway.clients import Clients, clients_by
from services.gateway.doorkeeper import GatewayDoorkeeper
from services.gateway.encoding import encode_in_own_threads
from services.gateway.generation import Generation
from services.gateway.http.body_reader import BodyReader
from services.gateway.http.cors import Cors
from services.gateway.http.door import Door, Limits
from services.gateway.http.inside import Inside
from services.gateway.http.pages import AllPages, NamedPages, Pages
from services.gateway.http.server import HttpServer, application, serving_http
from services.gateway.http.status import StatusRoutes
from services.gateway.http.token_names import TokenNames
from services.gateway.methods import QUEUED, SERVICE_NAME
from services.gateway.micro_batcher import MicroBatcher
from services.gateway.pacing import ClientPacing
from services.gateway.quotas import TokenQuotas
from services.gateway.requests import RequestReader
from services.gateway.routers import Routers
from services.gateway.service import GenerationService
from services.gateway.settings import GatewaySettings
from services.gateway.shares import share_of
from services.gateway.tokeniser import Tokeniser
from services.gateway.vllm_metrics import VllmMetrics
from services.gateway.waiting import WaitingQueue
from services.metadata.tokenizer_digest import tokenizer_digest
from services.runtime.build_info import observe_build
from services.runtime.host_port import is_loopback, split_host_port
from services.runtime.server import Health, serving, until_told_to_stop
from services.runtime.yielding import share_interpreter_quickly


async def run(
    settings: GatewaySettings, *, on_ready: Callable[[int], Awaitable[None]] | None = None
) -> None:
    """Serve until told to stop, then drain; `on_ready` is called once, with the port, when a router
    was found.

    Raises BadState for a checkpoint that cannot be used or is not the router's, and PortInUse,
    within an ExceptionGroup where it happens while serving.
    """
    share_interpreter_quickly()
    encode_in_own_threads()
    async with gateway(settings) as running, asyncio.TaskGroup() as tasks:
        ready = tasks.create_task(_announce(running, on_ready))
        await until_told_to_stop()
        ready.cancel()


class Gateway:
    """A gateway whose port is open."""

    def __init__(self, port: int, routers: Routers, http_port: int | None) -> None:
        self.port = port
        self.http_port = http_port
        self._routers = routers

    @property
    def num_routers(self) -> int:
        """Routers that can be used now."""
        return self._routers.num_up

    async def until_ready(self) -> None:
        """Return when the first router is up; raises BadState when that runs another model."""
        await self._routers.until_reachable()


@asynccontextmanager
async def gateway(settings: GatewaySettings) -> AsyncIterator[Gateway]:
    """Serve for as long as the block lasts, then drain.

    Healthy whenever a router can be reached.
    """
    observe_build()
    refusals.count_from_zero()
    stays.count_from_zero()
    checkpoint = read_checkpoint(
        settings.model,
        name=settings.model_name,
        takes_recommendations=settings.generation_config == "auto",
    )
    tokeniser = Tokeniser(checkpoint, threads=settings.tokeniser_threads)
    waiting = WaitingQueue(
        max_batch_requests=settings.max_batch_requests, max_batch_tokens=settings.max_batch_tokens
    )
    dispatcher = MicroBatcher(waiting)
    routers = Routers(
        settings.routers,
        dispatcher,
        vocab_size=checkpoint.vocab_size,
        tokenizer_digest=tokenizer_digest(settings.model),
        grace_seconds=settings.router_grace_seconds,
        tls=settings.tls,
    )
    clients = clients_by(settings.tokens, settings.tls)
    admission = _admission(settings)
    quotas = TokenQuotas(
        tokens_per_second=settings.tokens_per_second, max_clients=settings.max_clients
    )
    doorkeeper = _doorkeeper(settings, clients, admission, quotas)
    aliases = _aliases(settings, checkpoint.name, routers, admission)
    inside = _inside(
        *(settings, checkpoint, tokeniser, dispatcher, routers, admission, quotas, aliases)
    )
    service = GenerationService(
        *(inside.checkpoint, inside.reader, inside.generation, routers, clients),
        default_timeout_seconds=settings.default_timeout_seconds,
        max_timeout_seconds=settings.max_timeout_seconds,
    )
    try:
        with nullcontext() if aliases is None else aliases.exported():
            async with (
                _http(settings, inside, clients, doorkeeper) as http,
                _living(settings, service, routers, clients, doorkeeper, http) as port,
            ):
                yield Gateway(port, routers, None if http is None else http.port)
    finally:
        tokeniser.close()


def _admission(settings: GatewaySettings) -> Admission:
    return Admission(
        max_requests=settings.max_waiting_requests,
        max_tokens=settings.max_waiting_tokens,
        client_share=settings.max_client_share,
    )


def _aliases(
    settings: GatewaySettings, model: str, routers: Routers, admission: Admission
) -> VllmMetrics | None:
    if settings.metrics_aliases is None:
        return None
    return VllmMetrics(
        model,
        num_running=lambda: routers.num_sequences,
        num_waiting=lambda: admission.num_requests,
        kv_cache_usage=lambda: routers.kv_usage,
    )


def _doorkeeper(
    settings: GatewaySettings, clients: Clients, admission: Admission, quotas: TokenQuotas
) -> GatewayDoorkeeper:
    return GatewayDoorkeeper(
        clients,
        max_calls=settings.max_calls,
        client_share=settings.max_client_share,
        queued=QUEUED,
        admission=admission,
        quotas=quotas,
    )


def _inside(
    settings: GatewaySettings,
    checkpoint: TextCheckpoint,
    tokeniser: Tokeniser,
    dispatcher: MicroBatcher,
    routers: Routers,
    admission: Admission,
    quotas: TokenQuotas,
    aliases: VllmMetrics | None,
) -> Inside:
    """What both ports serve by."""
    reader = RequestReader(
        checkpoint,
        max_prompt_bytes=settings.max_prompt_bytes,
        max_context=lambda: routers.limits.max_context,
    )
    pacing = ClientPacing(
        requests_per_second=settings.requests_per_second,
        max_waiting=settings.max_paced_requests,
        max_clients=settings.max_clients,
    )
    generation = Generation(
        model=checkpoint.name,
        reader=reader,
        tokeniser=tokeniser,
        admission=admission,
        pacing=pacing,
        quotas=quotas,
        dispatcher=dispatcher,
        routers=routers,
        aliases=aliases,
    )
    return Inside(
        *(checkpoint, reader, generation, routers, TokenNames(checkpoint.tokenizer)),
        always_metrics=settings.include_metrics,
        strict_fields=settings.strict_fields,
        quiet_seconds=settings.http_quiet_seconds,
    )


def _pages(settings: GatewaySettings, clients: Clients) -> Pages:
    if clients.asks_for_keys:
        return AllPages()
    host, _ = split_host_port(settings.http_listen, lowest_port=0)
    # With TLS a page of another name has been shown a certificate that is not of that name.
    has_local_names = settings.tls is None and is_loopback(host)
    return NamedPages(settings.cors_origin, has_local_names=has_local_names)


@asynccontextmanager
async def _http(
    settings: GatewaySettings, inside: Inside, clients: Clients, doorkeeper: GatewayDoorkeeper
) -> AsyncIterator[HttpServer | None]:
    """OpenAI's API, where it is to be served."""
    if not settings.http_listen:
        yield None
        return
    bodies = BodyReader()
    door = Door(
        clients,
        doorkeeper,
        Limits(
            inside.reader.max_request_bytes,
            settings.default_timeout_seconds,
            settings.http_request_seconds,
            settings.http_max_connections,
            share_of(settings.http_max_connections, settings.max_client_share),
        ),
        cors=Cors(settings.cors_origin),
        pages=_pages(settings, clients),
        bodies=bodies,
        trace_url=settings.trace_url,
    )
    status = StatusRoutes(
        inside, check_open=door.check_open, num_requests=lambda: doorkeeper.num_requests
    )
    with closing(bodies):
        async with serving_http(
            application(inside, door, status),
            door,
            listen=settings.http_listen,
            drain_seconds=settings.drain_seconds,
            tls=settings.tls,
            needs_certificate=clients.needs_certificate,
        ) as server:
            yield server


@asynccontextmanager
async def _living(
    settings: GatewaySettings,
    service: GenerationService,
    routers: Routers,
    clients: Clients,
    doorkeeper: GatewayDoorkeeper,
    http: HttpServer | None,
) -> AsyncIterator[int]:
    health = Health([SERVICE_NAME])
    async with asyncio.TaskGroup() as loops:
        links = loops.create_task(routers.run())
        async with serving(
            service.register,
            listen=settings.listen,
            service_names=[SERVICE_NAME],
            drain_seconds=settings.drain_seconds,
            health=health,
            max_request_bytes=service.max_request_bytes,
            doorkeeper=doorkeeper,
            tls=settings.tls,
            access=clients,
        ) as port:
            watch = loops.create_task(_keep_health(health, routers))
            yield port
            watch.cancel()
            if http is not None:  # at the same time as gRPC
                http.begin_draining()
        if http is not None:  # before the routers are left
            await http.until_drained()
        links.cancel()


async def _keep_health(health: Health, routers: Routers) -> None:
    while True:
        await routers.reachable.wait()
        await health.ready()
        await routers.unreachable.wait()
        await health.draining()


async def _announce(running: Gateway, on_ready: Callable[[int], Awaitable[None]] | None) -> None:
    await running.until_ready()
    if on_ready is not None:
        await on_ready(running.port)
