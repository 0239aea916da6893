"""The client of a load for servers with OpenAI's API over HTTP: vLLM, SGLang, ours."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from moesaic.v1 import generation_pb2
from services.cli.bench.client import DESCRIBE_SECONDS, LEAST_TIMEOUT_SECONDS
from services.cli.bench.failures import RequestsFailed
from services.cli.bench.http_stream import HttpStream
from services.cli.bench.prompts import TOKENIZE_SECONDS, BenchPrompt
from services.cli.bench.sample import NANOS_PER_SECOND, RequestFailure, Sample
from services.cli.bench.settings import BenchSettings
from services.cli.failed_calls import unreachable
from services.runtime.tls_files import TlsFiles
from services.wire.quoting import peers_words
from services.wire.sampling import MAX_SEED, PARAMETERS

# Who lists models like this can tell where the time went.
OURS = "moesaic"
MAX_ERROR_BYTES = 64 << 10
READ_BYTES = 64 << 10


@asynccontextmanager
async def http_client(
    url: str, settings: BenchSettings, prompts: Sequence[BenchPrompt]
) -> AsyncIterator["HttpClient"]:
    """A client for the server at `url`, for as long as the block lasts."""
    key = settings.key
    # What is packed comes late, in pieces of its own.
    headers = {"Accept-Encoding": "identity"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    connector = aiohttp.TCPConnector(limit=0, ssl=_tls(settings))
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, read_bufsize=READ_BYTES
    ) as session:
        yield HttpClient(session, url, settings, prompts)


class HttpClient:
    """Sends the requests of a load, each with what is left of its time; as `LoadClient`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        settings: BenchSettings,
        prompts: Sequence[BenchPrompt],
    ) -> None:
        self._session = session
        self._url = url
        self._settings = settings
        self._model = settings.http_model or ""
        self._is_ours = False
        self._num_tokens = 0
        self.prompts = prompts

    @property
    def num_tokens(self) -> int:
        """Tokens that came so far, of all requests; of those under way, by chunks."""
        return self._num_tokens

    async def describe(self) -> generation_pb2.GetModelResponse:
        """What the server serves: the model that is asked for, else the first of its list."""
        listed = await self._asked("GET", "/v1/models", None, DESCRIBE_SECONDS)
        models = [model for model in listed.get("data", ()) if isinstance(model, dict)]
        chosen = next((one for one in models if self._model in ("", one.get("id"))), None)
        if chosen is None:
            wanted = f"no model {self._model!r}" if self._model else "no model"
            raise RequestsFailed(f"{self._url}/v1/models lists {wanted}")
        self._model = str(chosen.get("id"))
        self._is_ours = chosen.get("owned_by") == OURS
        context = chosen.get("max_model_len")
        return generation_pb2.GetModelResponse(
            model=self._model, max_context=context if isinstance(context, int) else 0
        )

    async def tokenise(self, text: str) -> Sequence[int]:
        """Token ids by the server's tokenizer; raises RequestsFailed where it does not tell."""
        body = {"model": self._model, "prompt": text}
        answer = await self._asked("POST", "/tokenize", body, TOKENIZE_SECONDS)
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
            raise RequestsFailed(f"{self._url}/tokenize answers without tokens")
        return tokens

    async def send(self, sample: Sample) -> None:
        """Send the request of the sample's number, and write into the sample what comes of it."""
        prompt = self.prompts[sample.number % len(self.prompts)]
        body = request_body(self._settings, prompt, sample.number, model=self._model)
        if self._is_ours:
            body["include_metrics"] = True
        waited_seconds = (time.monotonic_ns() - sample.due_nanos) / NANOS_PER_SECOND
        timeout_seconds = max(LEAST_TIMEOUT_SECONDS, self._settings.timeout - waited_seconds)
        try:
            async with asyncio.timeout(timeout_seconds):
                sample.failure = await self._stream(body, sample)
        except TimeoutError:
            sample.failure = RequestFailure("TIMEOUT", "the request's time was up")
        except (aiohttp.ClientError, OSError) as error:
            sample.failure = _lost(error)
        sample.ended_nanos = time.monotonic_ns()

    async def _stream(self, body: Mapping[str, Any], sample: Sample) -> RequestFailure | None:
        path = "/v1/chat/completions" if self._settings.chat else "/v1/completions"
        async with self._session.post(self._url + path, json=body, timeout=NO_TIMEOUT) as response:
            if response.status != 200:
                return await _refusal(response)
            stream = HttpStream(sample)
            async for block in response.content.iter_any():
                self._num_tokens += stream.feed(block, time.monotonic_ns())
        self._num_tokens += stream.end()
        return stream.failure

    async def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None, seconds: float
    ) -> dict[str, Any]:
        """The object that a route answers with. Raises RequestsFailed where there is none."""
        try:
            async with (
                asyncio.timeout(seconds),
                self._session.request(
                    method, self._url + path, json=body, timeout=NO_TIMEOUT
                ) as response,
            ):
                if response.status != 200:
                    failure = await _refusal(response)
                    raise RequestsFailed(f"{path}: {failure.status}: {failure.message}")
                answer = await response.json(content_type=None)
        except TimeoutError:
            raise RequestsFailed(
                f"{self._url}{path} does not answer within {seconds:g} s"
            ) from None
        except aiohttp.ClientConnectorError as error:
            verbose = self._settings.verbose
            words = await unreachable("http", self._url, str(error), verbose=verbose)
            raise RequestsFailed(words) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = _lost(error)
            raise RequestsFailed(f"{failure.status}: {self._url}: {failure.message}") from error
        if not isinstance(answer, dict):
            raise RequestsFailed(f"{self._url}{path} answers without a JSON object")
        return answer


# Times are bounded around the calls.
NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


def request_body(
    settings: BenchSettings, prompt: BenchPrompt, number: int, *, model: str
) -> dict[str, Any]:
    """The body for a prompt; what neither its line nor the settings say is left to the server."""
    body: dict[str, Any] = {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": prompt.max_new_tokens or settings.max_new_tokens,
    }
    if settings.chat:
        body["messages"] = [{"role": "user", "content": prompt.text}]
    else:
        body["prompt"] = prompt.text if prompt.token_ids is None else [*prompt.token_ids]
    for name in PARAMETERS:
        if (value := getattr(settings, name)) is not None:
            body[name] = value
    body["seed"] = (settings.seed + number) & MAX_SEED
    if settings.ignore_eos:
        body["ignore_eos"] = True
    return body


async def _refusal(response: aiohttp.ClientResponse) -> RequestFailure:
    said = await response.content.read(MAX_ERROR_BYTES)
    after = response.headers.get("Retry-After", "")
    return RequestFailure(
        f"HTTP {response.status}",
        peers_words(_message_of(said) or response.reason or ""),
        float(after) if after.isdecimal() else None,
    )


def _message_of(said: bytes) -> str:
    """What an error's body says, in OpenAI's form or in another."""
    try:
        document = json.loads(said)
    except ValueError:
        return said.decode(errors="replace")
    error = document.get("error", document) if isinstance(document, dict) else document
    message = error.get("message") if isinstance(error, dict) else None
    return message if isinstance(message, str) else json.dumps(document)


def _lost(error: Exception) -> RequestFailure:
    return RequestFailure("CONNECTION", peers_words(str(error) or type(error).__name__))


def _tls(settings: BenchSettings) -> ssl.SSLContext | bool:
    trust = settings.trust
    if trust is None:
        return True
    context = ssl.create_default_context(cafile=trust.authority)
    if isinstance(trust, TlsFiles):
        context.load_cert_chain(trust.certificate, trust.key, password="")
    return context
