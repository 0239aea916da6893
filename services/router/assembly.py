"""Puts a router together: checkpoint, trunk, expert services and engine become one, and ready."""

import asyncio
import logging
import uuid
from collections.abc import Sequence

import torch

from moesaic.v1 import router_pb2
from services import kernels
from services.metadata.tokenizer_digest import tokenizer_digest
from services.model.checkpoint import Checkpoint
from services.model.expert_kind import expert_kind
from services.model.fingerprint import numerics_fingerprint
from services.model.hash_cache import HashCache
from services.model.kv_cache import KvCache, bytes_per_token
from services.router.balance.balancer import Balancer
from services.router.balance.metrics import observe_balancer
from services.router.balance.planner import Planner
from services.router.dispatch.audit_metrics import observe_auditor
from services.router.dispatch.auditor import Auditor
from services.router.dispatch.combine import ExactCombine, PartialCombine
from services.router.dispatch.dispatcher import Dispatcher
from services.router.dispatch.own_experts import OwnExperts
from services.router.engine.engine import Engine
from services.router.engine.kv_budget import KvBudget, kv_budget
from services.router.engine.scheduler import Scheduler, most_scored_tokens
from services.router.engine.sequence import TraceDetail
from services.router.engine.tracing import TracePolicy
from services.router.engine.trunk import Numerics, Trunk
from services.router.engine.warm_up import warm_up
from services.router.hosting.fleet import Fleet
from services.router.hosting.metrics import observe_fleet
from services.router.lanes.choice import AutoLanes, FixedLanes, Lanes
from services.router.load.watch import RoutingWatch
from services.router.peers.expected import Expected
from services.router.running import Running
from services.router.settings import RouterSettings
from services.router.start_phase import StartPhase
from services.runtime.progress import Progress
from services.wire.errors import BadState
from services.wire.frames import ELEMENT_TYPES
from services.wire.row_bytes import type_name

logger = logging.getLogger(__name__)

# Between two lines of the log on how far the experts are.
PROGRESS_SECONDS = 5.0


class Stopped(Exception):
    """Loading was given up, since the router stops."""


class Assembly:
    """Starts and stops the parts; their loops belong to the task group that `start` is given.
    `phase` is what a start is at.

    Raises BadState when the settings ask for more than the model has.
    """

    def __init__(self, settings: RouterSettings, checkpoint: Checkpoint) -> None:
        self.phase = StartPhase.TRUNK
        self._instance = uuid.uuid4().hex
        self._settings = settings
        self._checkpoint = checkpoint
        # Now, as the configuration was read.
        self._tokenizer_digest = tokenizer_digest(checkpoint.directory)
        self._check_context()
        self._numerics = Numerics(
            checkpoint.dtype if settings.dtype == "auto" else getattr(torch, settings.dtype),
            torch.device(settings.device),
            settings.batch_invariant,
        )
        self._wire_dtype = _wire_dtype(settings, self._numerics.dtype)
        self._watch = RoutingWatch(
            checkpoint.moe_layers,
            checkpoint.num_experts,
            checkpoint.num_experts_per_token,
            window_steps=settings.rebalance_steps,
        )
        self._dispatcher = Dispatcher(
            num_experts=checkpoint.num_experts,
            hidden_size=checkpoint.hidden_size,
            wire_dtype=self._wire_dtype,
            combine=PartialCombine() if settings.combine == "partial" else ExactCombine(),
            last_layer=checkpoint.num_layers - 1,
            watch=self._watch,
            capacity_factor=settings.capacity_factor,
            unserved_seconds=settings.unserved_seconds,
            frame_checksums=settings.frame_checksums,
            hedge_share=settings.hedge_share,
        )
        self._lanes: Lanes = (
            AutoLanes(settings.max_lanes, len(checkpoint.moe_layers))
            if settings.lanes == "auto"
            else FixedLanes(settings.lanes)
        )
        self._loops: list[asyncio.Task[None]] = []
        self._is_stopped = False

    async def start(self, loops: asyncio.TaskGroup) -> Running:
        """Load the trunk while the experts are found and given out; ready when both
        are, and warm.
        """
        settings = self._settings
        fleet = self._build_fleet()
        self._loops.append(loops.create_task(fleet.run(settings.experts_wait_seconds)))
        showing = loops.create_task(self._log_progress(fleet))
        self._loops.append(showing)
        trunk = await asyncio.to_thread(self._load_trunk)
        per_token = bytes_per_token(trunk.kv_shapes, self._numerics.dtype)
        budget = kv_budget(
            settings.kv_memory,
            per_token,
            asked=settings.max_context,
            models=self._checkpoint.max_context,
            max_sequences=settings.max_sequences,
        )
        logger.info("computing on %s, kernels %s", self._numerics.device, kernels.level())
        logger.info(
            "keys and values take %d bytes a token; room for %d tokens",
            per_token,
            budget.num_tokens,
        )
        engine = self._build_engine(trunk, fleet, budget)
        self.phase = StartPhase.EXPERTS
        await fleet.complete()
        showing.cancel()
        await self._warm_up(engine, budget, loops)
        self._watch.restart()  # warming up is not traffic
        observe_fleet(fleet)
        self._begin_audit(fleet, loops)
        balancer = Balancer(fleet, self._watch, Planner(), settings)
        self._loops.append(loops.create_task(balancer.run()))
        observe_balancer(balancer)
        engine.metrics.expect(peer.address for peer in fleet.peers)
        self._loops.append(loops.create_task(trunk.settle(lambda: not self._is_stopped)))
        return Running(engine, fleet, self._describe(budget, trunk), self._watch, balancer)

    def _begin_audit(self, fleet: Fleet, loops: asyncio.TaskGroup) -> None:
        own, share = OwnExperts(self._checkpoint, self._numerics.dtype), self._settings.audit_share
        auditor = Auditor(share, own, lambda: self._dispatcher.placement, fleet.compute_alike)
        self._loops.append(loops.create_task(auditor.run()))
        self._dispatcher.audit_by(auditor)
        observe_auditor(auditor)

    async def _warm_up(self, engine: Engine, budget: KvBudget, loops: asyncio.TaskGroup) -> None:
        self.phase = StartPhase.WARM_UP
        logger.info("warming up")
        self._loops.append(loops.create_task(engine.run()))
        max_batch_tokens = self._settings.max_batch_tokens
        await warm_up(engine, self._checkpoint.vocab_size, max_batch_tokens, budget.max_context)

    async def _log_progress(self, fleet: Fleet) -> None:
        """Say every few seconds how far the experts are, until cancelled."""
        checkpoint, num_experts = self._checkpoint, len(fleet.wanted.experts)
        expert_bytes = checkpoint.expert_bytes(checkpoint.moe_layers[0], self._numerics.dtype)
        progress: Progress | None = None
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            num_ready = num_experts - fleet.laid.num_below(1)
            if num_ready and progress is None:
                progress = Progress(num_experts * expert_bytes, num_ready * expert_bytes)
            if progress is not None:
                progress.at(num_ready * expert_bytes)
                logger.info("%d of %d experts are ready, %s", num_ready, num_experts, progress)

    def stop(self) -> None:
        """End the loops, and loading where it still goes on."""
        self._is_stopped = True
        for loop in self._loops:
            loop.cancel()

    def _check_context(self) -> None:
        checkpoint, asked = self._checkpoint, self._settings.max_context
        if asked is not None and asked > checkpoint.max_context:
            note = checkpoint.context_note or "more than the model's positions"
            raise BadState(
                f"max_context is {asked}, the model's limit is {checkpoint.max_context}: {note}"
            )
        if checkpoint.context_note is not None:
            logger.warning("%s", checkpoint.context_note)

    def _build_fleet(self) -> Fleet:
        settings, checkpoint = self._settings, self._checkpoint
        expected = Expected(
            model_digest=checkpoint.digest,
            element_type=ELEMENT_TYPES[self._numerics.dtype],
            wire_type=ELEMENT_TYPES[self._wire_dtype],
            sums_pairs=settings.combine == "partial",
            hidden_size=checkpoint.hidden_size,
            batch_invariant=self._numerics.batch_invariant,
            moe_layers=tuple(checkpoint.moe_layers),
            num_experts=checkpoint.num_experts,
        )
        return Fleet(
            checkpoint,
            settings.experts,
            expected,
            num_lanes=self._lanes.max_lanes,
            frame_floor_seconds=settings.frame_floor_seconds,
            place=self._dispatcher.place,
            name=self._instance,
            coverage=settings.coverage,
            requires_coverage=settings.require_coverage,
            awaited=self._dispatcher.awaited,
            checks_contents=settings.check_experts,
            hashes=HashCache.at(settings.hash_cache),
            tls=settings.tls,
        )

    def _load_trunk(self) -> Trunk:
        # Gradients are off per thread, and this is another one.
        with torch.no_grad():
            return Trunk(
                self._checkpoint, self._numerics, self._dispatcher.compute, self._note_progress
            )

    def _note_progress(self, num_loaded: int, num_total: int) -> None:
        if self._is_stopped:
            # A process waits for its threads, and this one would read on for minutes.
            raise Stopped
        if num_loaded == num_total:
            logger.info("loaded %d tensors of the trunk", num_total)

    def _build_engine(self, trunk: Trunk, fleet: Fleet, budget: KvBudget) -> Engine:
        settings = self._settings
        cache = KvCache(
            trunk.kv_shapes, budget.num_tokens, self._numerics.dtype, self._numerics.device
        )
        scheduler = Scheduler(
            cache.pool,
            max_sequences=settings.max_sequences,
            max_context=budget.max_context,
            max_batch_tokens=settings.max_batch_tokens,
            max_lanes=self._lanes.max_lanes,
            max_scored_tokens=most_scored_tokens(self._checkpoint.vocab_size),
        )

        def forget(requests: Sequence[int]) -> None:
            fleet.cancel(requests)
            self._dispatcher.forget(requests)

        return Engine(
            trunk,
            cache,
            scheduler,
            lanes=self._lanes,
            tracing=TracePolicy.of(
                TraceDetail[settings.trace_detail.upper()], layers_share=settings.trace_layers_share
            ),
            forget=forget,
        )

    def _describe(self, budget: KvBudget, trunk: Trunk) -> router_pb2.RouterServiceDescribeResponse:
        checkpoint, settings = self._checkpoint, self._settings
        return router_pb2.RouterServiceDescribeResponse(
            model=settings.model_name or checkpoint.name,
            model_type=checkpoint.model_type,
            model_digest=checkpoint.digest,
            vocab_size=checkpoint.vocab_size,
            max_context=budget.max_context,
            default_max_new_tokens=settings.default_max_new_tokens,
            max_sequences=settings.max_sequences,
            kv_tokens=budget.num_tokens,
            num_moe_layers=len(checkpoint.moe_layers),
            num_experts=checkpoint.num_experts,
            num_experts_per_token=checkpoint.num_experts_per_token,
            numerics_fingerprint=self._fingerprint(),
            trunk_hash=trunk.content_hash,
            tokenizer_digest=self._tokenizer_digest,
            instance=self._instance,
        )

    def _fingerprint(self) -> str:
        checkpoint, numerics = self._checkpoint, self._numerics
        experts = checkpoint.experts_module(checkpoint.moe_layers[0])
        kind = expert_kind(experts, numerics.dtype)
        parts = [numerics_fingerprint(numerics.device, kind)]
        if self._settings.combine == "partial":
            parts.append("partial sums")
        if self._wire_dtype is not self._numerics.dtype:
            parts.append(f"{type_name(self._wire_dtype)} on the wire")
        return "; ".join(parts)


def _wire_dtype(settings: RouterSettings, dtype: torch.dtype) -> torch.dtype:
    if settings.wire_dtype == "auto":
        return dtype
    if dtype is torch.float16:
        raise BadState(
            "wire_dtype is bfloat16, which has less precision than float16, the type that is "
            "computed in"
        )
    return torch.bfloat16
