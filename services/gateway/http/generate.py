"""The two routes that generate text: a request in, one answer or a stream of it out."""

import hashlib
from dataclasses import replace
from functools import partial

from aiohttp import web

from moesaic.v1 import generation_pb2 as pb
from services.gateway.caller import Caller
from services.gateway.generation import Completed
from services.gateway.http.answer_size import check_size
from services.gateway.http.answers import Answer
from services.gateway.http.asked import AskedText
from services.gateway.http.chunks import DONE, Chunks
from services.gateway.http.continuations import Continuations, Prompt
from services.gateway.http.event_stream import EventStream
from services.gateway.http.events import Run, events_of
from services.gateway.http.inside import Inside
from services.gateway.http.receipts import CallTimes, server_timing
from services.gateway.http.visits import VISIT, Visit
from services.gateway.http.wanted import Heading

# Of what comes before a stream's first token, that is held at a time.
OPENING_BYTES = 64 << 10


class GenerateRoutes:
    """/v1/chat/completions and /v1/completions."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def answer(
        self, request: web.Request, caller: Caller, asked: AskedText
    ) -> web.StreamResponse:
        """Go on with a conversation, with one text or with several."""
        visit = request[VISIT]
        self._inside.note_unknown(asked.unknown, visit)
        call = _Call(self._inside, caller, asked, visit)
        return await (call.stream(request) if asked.is_stream else call.whole())


class _Call:
    """One call of a route."""

    def __init__(self, inside: Inside, caller: Caller, asked: AskedText, visit: Visit) -> None:
        self._inside = inside
        self._caller = caller
        self._requests = asked.requests
        self._wanted = asked.wanted
        if inside.always_metrics:
            self._wanted = replace(asked.wanted, metrics=True)
        self._num_choices = asked.num_choices
        self._times = CallTimes(visit.arrived)
        self._visit = visit
        self._together = inside.generation.together(caller)
        fingerprint = inside.routers.fingerprint
        name = asked.name or visit.request_id
        self._heading = Heading(
            name, inside.checkpoint.name, _short(fingerprint), self._wanted.is_chat
        )

    async def whole(self) -> web.Response:
        """One answer, when everything has been generated."""
        inside, visit = self._inside, self._visit
        answer = Answer(self._heading, self._wanted, inside.token_names, visit.trace_id)
        so_far = await self._begin()
        check_size(so_far.all, self._requests, self._wanted, inside.routers)
        async with events_of(self._runs(so_far)) as events:
            async for number, event in events:
                one = so_far.note(number, event)
                if not isinstance(event, Completed):
                    answer.add(one, event)
        visit.headers["Server-Timing"] = server_timing(so_far.longest.receipt)
        return web.Response(
            body=answer.written(so_far), content_type="application/json", charset="utf-8"
        )

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Each token as it comes."""
        inside, wanted = self._inside, self._wanted
        chunks = Chunks(self._heading, wanted, inside.token_names, self._visit.trace_id)
        stream = EventStream(request, quiet_seconds=inside.quiet_seconds)
        async with stream.opened():
            so_far = await self._begin()
            last = await self._write_chunks(stream, chunks, so_far)
            stream.end_with(last + (chunks.usage(so_far) if wanted.usage else b"") + DONE)
        return stream.response

    async def _write_chunks(
        self, stream: EventStream, chunks: Chunks, so_far: Continuations
    ) -> bytes:
        """Returns what is not written yet, for the end to leave with it."""
        has_begun, last = False, b""
        num_left = len(so_far.all)
        async with events_of(self._runs(so_far)) as events:
            async for number, event in events:
                one = so_far.note(number, event)
                if isinstance(event, Completed):
                    num_left -= 1
                    written = chunks.last(one, so_far, is_very_last=not num_left)
                else:
                    written = chunks.piece(one, event)
                if not has_begun:  # with the first token: before it, failures are statuses
                    has_begun, written = True, await self._opened(stream, chunks, so_far) + written
                if num_left:
                    await stream.write(written)
                else:
                    last = written
        return last

    async def _opened(self, stream: EventStream, chunks: Chunks, so_far: Continuations) -> bytes:
        """Write what comes before the first token, but for the rest, which goes out with it. Each
        continuation's may have the whole prompt.
        """
        opening = b""
        for one in so_far.all:
            opening += chunks.first(one)
            if len(opening) > OPENING_BYTES:
                await stream.write(opening)
                opening = b""
        return opening

    async def _begin(self) -> Continuations:
        self._together.check(len(self._requests), self._num_choices)
        prompts = [await self._prompt(request) for request in self._requests]
        return Continuations(prompts, self._num_choices, self._times)

    async def _prompt(self, request: pb.GenerateRequest) -> Prompt:
        wanted, inside = self._wanted, self._inside
        prompt = Prompt()
        if wanted.token_ids or (wanted.echo and wanted.logprobs):
            prompt.token_ids = await inside.token_ids(request, self._caller)
        if wanted.echo:
            inside.reader.prompt(request)  # by its own name, where something is wrong with it
            prompt.echo = request.text or await inside.generation.detokenise(
                request.token_ids.ids, self._caller
            )
        return prompt

    def _runs(self, so_far: Continuations) -> list[Run]:
        together = self._together if len(self._requests) > 1 else None
        return [
            self._inside.generation.run(
                *(request, self._caller, partial(so_far.begin, number), together)
            )
            for number, request in enumerate(self._requests)
        ]


def _short(fingerprint: str) -> str:
    return f"fp_{hashlib.blake2b(fingerprint.encode(), digest_size=5).hexdigest()}"
