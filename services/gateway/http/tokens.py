"""/tokenize and /detokenize: text to token ids and back, as vLLM has them."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

from aiohttp import web

from services.gateway.caller import Caller
from services.gateway.http.asked import AskedDetokenised, AskedTokens
from services.gateway.http.inside import Inside
from services.gateway.http.visits import VISIT

# Tokens that are written before others have a turn of the loop.
PORTION = 4096


class TokenRoutes:
    """Both of them."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside

    async def tokenize(
        self, request: web.Request, caller: Caller, asked: AskedTokens
    ) -> web.Response:
        """The token ids that a prompt is."""
        inside = self._inside
        inside.note_unknown(asked.unknown, request[VISIT])
        inside.reader.check_model(asked.request.model)
        prompt = inside.reader.prompt(asked.request)
        ids = await inside.generation.tokenise(prompt, caller)
        names = inside.token_names
        texts = await _written(ids, lambda one: names.of(one).text) if asked.with_texts else "null"
        document = {"count": len(ids), "max_model_len": inside.routers.limits.max_context}
        written = await _written(ids, lambda one: one)
        return web.Response(
            text=f'{json.dumps(document)[:-1]}, "tokens": {written}, "token_strs": {texts}}}',
            content_type="application/json",
        )

    async def detokenize(
        self, request: web.Request, caller: Caller, asked: AskedDetokenised
    ) -> web.Response:
        """The text that token ids read as, special ones included."""
        inside = self._inside
        inside.note_unknown(asked.unknown, request[VISIT])
        inside.reader.check_model(asked.request.model)
        text = await inside.generation.detokenise(asked.request.token_ids, caller)
        return web.json_response({"prompt": text})


async def _written(ids: Sequence[int], told: Callable[[int], Any]) -> str:
    """What is told of each, as a list in JSON."""
    parts = []
    for start in range(0, len(ids), PORTION):
        parts.append(json.dumps([told(one) for one in ids[start : start + PORTION]])[1:-1])
        await asyncio.sleep(0)
    return f"[{', '.join(parts)}]"
