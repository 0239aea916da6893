"""Sequences straight to the router, as a gateway submits them: what the cluster does without the
text's side.
"""

import time
from collections.abc import Sequence

import grpc

from bench.harness.failure import BenchFailed
from bench.rig.generated import Generated
from moesaic.v1 import common_pb2, router_pb2, router_pb2_grpc
from services.runtime.channels import open_channel
from services.runtime.roles import Role
from services.runtime.tls_files import TlsFiles

GREEDY = common_pb2.SamplingParameters(temperature=0.0, top_k=0, top_p=1.0, min_p=0.0, seed=0)


class RouterLoad:
    """A gateway's connection to a router; a stream is open only while it generates, since credit is
    shared out.
    """

    def __init__(self, address: str, *, num_new_tokens: int, tls: TlsFiles | None = None) -> None:
        self._channel: grpc.aio.Channel = open_channel(
            address, tls=tls, server_name=Role.ROUTER.server_name
        )
        self._stub = router_pb2_grpc.RouterServiceStub(self._channel)
        self._num_new_tokens = num_new_tokens

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def generate(self, prompts: Sequence[Sequence[int]]) -> Generated:
        """Continue every prompt, greedily; raises BenchFailed when a sequence ends in another way
        than by length.
        """
        call = self._stub.Run()
        try:
            batch = Batch(prompts, self._num_new_tokens)
            credit = (await call.read()).credit
            began = time.perf_counter()
            while True:
                if submit := batch.submit(credit):
                    await call.write(router_pb2.RunRequest(submit=submit))
                if batch.is_done:
                    break
                response = await call.read()
                batch.receive(response, time.perf_counter() - began)
                credit = response.credit
            seconds = time.perf_counter() - began
        finally:
            call.cancel()
        return Generated(seconds, batch.token_seconds, batch.token_ids, receipts=batch.receipts)


class Batch:
    """The sequences of one run: what waits for credit, and what came back."""

    def __init__(self, prompts: Sequence[Sequence[int]], num_new_tokens: int) -> None:
        self._waiting = [
            router_pb2.SequenceRequest(
                sequence=number,
                prompt_token_ids=prompt,
                sampling=GREEDY,
                max_new_tokens=num_new_tokens,
            )
            for number, prompt in enumerate(prompts)
        ]
        self._num_submits = 0
        self._num_left = len(prompts)
        self.token_seconds: list[list[float]] = [[] for _ in prompts]
        self.token_ids: list[list[int]] = [[] for _ in prompts]
        self.receipts: list[common_pb2.LatencyReceipt] = []

    @property
    def is_done(self) -> bool:
        return not self._num_left

    def submit(self, credit: router_pb2.Credit) -> router_pb2.Submit | None:
        """As many of the waiting sequences as a credit allows that has taken all submissions into
        account.
        """
        if (
            not self._waiting
            or credit.acknowledged_submits < self._num_submits
            or not credit.sequences
        ):
            return None
        taken, self._waiting = self._waiting[: credit.sequences], self._waiting[credit.sequences :]
        self._num_submits += 1
        return router_pb2.Submit(sequences=taken)

    def receive(self, response: router_pb2.RunResponse, seconds: float) -> None:
        for event in response.events:
            if event.HasField("token"):
                self.token_seconds[event.sequence].append(seconds)
                self.token_ids[event.sequence].append(event.token.token_id)
            else:
                self._num_left -= 1
                if event.finish.reason != common_pb2.FINISH_REASON_LENGTH:
                    raise BenchFailed(f"a sequence failed in the router: {event.finish.message}")
                self.receipts.append(event.finish.receipt)
