"""Who is let in over HTTP, and what every response has."""

import asyncio
import json
import socket
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import hdrs
from aiohttp.test_utils import make_mocked_request
from pydantic import ValidationError

from bench.rig.certificates import Certificates
from services.gateway.app import gateway
from services.gateway.clients import TokenClients
from services.gateway.http.shown import HttpShown
from services.gateway.settings import GatewaySettings
from services.gateway.tokens import TokenFile, line_of, new_token
from services.runtime.roles import Role
from services.runtime.server import PortInUse
from services.runtime.span_writing import SpanRef
from services.runtime.tls_files import Authority
from tests.gateway.gateway_client import running_gateway
from tests.gateway.http.http_client import CHAT, MESSAGES, TEXT, HttpClient, http_gateway
from tests.gateway.router_double import RouterDouble, finished, token

OPEN = ("/health", "/ping", "/version")
LOOKING = ("/v1/models", "/v1/models/tessera", "/load", "/metrics", "/openapi.json")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def key(tmp_path: Path) -> str:
    """A client's token; the file is `tokens` in the folder."""
    key = new_token()
    (tmp_path / "tokens").write_text(line_of("alice", key, None))
    return key


async def test_with_keys_only_the_open_routes_answer_who_has_none(tmp_path: Path, key: str) -> None:
    async with http_gateway(RouterDouble(answer=[5]), tokens=tmp_path / "tokens") as client:
        for path in OPEN:
            assert (await client.get(path)).status == 200
        posts: dict[str, Any] = {CHAT: {"messages": MESSAGES}, TEXT: {"prompt": "a"}}
        posts |= {"/tokenize": {"prompt": "a"}, "/detokenize": {"tokens": [5]}}
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {key}"},
            {"x-api-key": "wrong"},
        ):
            answers = [await client.get(path, headers=headers) for path in LOOKING]
            answers += [await client.post(path, headers=headers, **posts[path]) for path in posts]
            for answer in answers:
                assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        for headers in ({"Authorization": f"Bearer {key}"}, {"x-api-key": key}):
            answers = [await client.get(path, headers=headers) for path in LOOKING]
            answers += [await client.post(path, headers=headers, **posts[path]) for path in posts]
            assert {answer.status for answer in answers} == {200}


async def test_over_http_and_grpc_a_client_has_one_rate(tmp_path: Path, key: str) -> None:
    async with http_gateway(
        RouterDouble(answer=[5]), tokens=tmp_path / "tokens", tokens_per_second=0.1
    ) as client:
        metadata = [("authorization", f"Bearer {key}")]
        await client.grpc.complete("hello " * 10, metadata=metadata)
        answer = await client.text(headers={"x-api-key": key})
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert int(answer.headers["Retry-After"]) > 1


def test_whose_a_request_is_is_looked_up_once(tmp_path: Path, key: str) -> None:
    clients = TokenClients(TokenFile(tmp_path / "tokens"))
    shown = HttpShown(make_mocked_request("POST", TEXT, headers={"x-api-key": key}))
    assert clients.client_of(shown) is clients.client_of(shown)


async def test_with_tls_a_client_is_known_by_its_certificate(certificates: Certificates) -> None:
    async with http_gateway(
        RouterDouble(answer=[5]),
        certificates=certificates,
        trust=certificates.of(Role.CLIENT),
    ) as client:
        for role, status in ((Role.CLIENT, 200), (Role.OPERATOR, 403)):
            answer = await client.ask(
                "POST",
                secure(client, TEXT),
                json={"prompt": "a"},
                ssl=context_of(certificates, role),
            )
            assert answer.status == status
        with pytest.raises(aiohttp.ClientError):
            await client.ask("GET", secure(client, "/health"), ssl=context_of(certificates, None))
        with pytest.raises(aiohttp.ClientError):
            await client.get("/health")


async def test_with_tls_each_token_of_a_stream_comes_at_once(certificates: Certificates) -> None:
    router = RouterDouble()
    async with http_gateway(
        router, certificates=certificates, trust=certificates.of(Role.CLIENT)
    ) as client:
        posting = asyncio.create_task(
            client.session.post(
                secure(client, TEXT),
                json={"prompt": "a", "stream": True},
                ssl=context_of(certificates, Role.CLIENT),
            )
        )
        number = (await router.next_sequence()).sequence
        router.say(token(number, 5))
        async with asyncio.timeout(20), await posting as response:
            for _ in range(4):
                await response.content.readuntil(b"\n\n")
                router.say(token(number, 5))
            router.say(finished(number))
            assert (await response.read()).endswith(b"data: [DONE]\n\n")


async def test_a_certificate_that_is_replaced_is_shown_to_the_next_connection(
    tmp_path: Path,
) -> None:
    mine = Certificates(tmp_path)
    async with http_gateway(
        RouterDouble(answer=[5]), certificates=mine, trust=mine.of(Role.CLIENT)
    ) as client:
        before = await shown_by(client.grpc.http_port, context_of(mine, Role.CLIENT))
        mine.make([Role.GATEWAY])
        after = await shown_by(client.grpc.http_port, context_of(mine, Role.CLIENT))
    assert before != after


async def test_with_tls_and_a_token_a_client_needs_no_certificate(
    tmp_path: Path, key: str, certificates: Certificates
) -> None:
    async with http_gateway(
        RouterDouble(answer=[5]),
        certificates=certificates,
        trust=Authority(certificates.of(Role.CLIENT).authority),
        tokens=tmp_path / "tokens",
    ) as client:
        context = context_of(certificates, None)
        for headers, status in (({"x-api-key": key}, 200), ({}, 401)):
            answer = await client.ask("GET", secure(client, "/load"), ssl=context, headers=headers)
            assert answer.status == status


def secure(client: HttpClient, path: str) -> str:
    return f"https://127.0.0.1:{client.grpc.http_port}{path}"


def context_of(certificates: Certificates, role: Role | None) -> ssl.SSLContext:
    """A client's; with the certificate of this role, or none."""
    context = ssl.create_default_context(cafile=certificates.of(Role.CLIENT).authority)
    context.check_hostname = False
    if role is not None:
        context.load_cert_chain(certificates.of(role).certificate, certificates.of(role).key)
    return context


async def shown_by(port: int, context: ssl.SSLContext) -> bytes:
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return shown


def test_strangers_are_kept_out_unless_that_is_said_to_be_meant() -> None:
    with pytest.raises(ValidationError, match=r"0\.0\.0\.0:8000 is reached from elsewhere"):
        GatewaySettings(http_listen="0.0.0.0:8000")
    assert GatewaySettings(http_listen="0.0.0.0:8000", insecure=True).http_listen == "0.0.0.0:8000"
    assert GatewaySettings(http_listen="off").http_listen == ""


async def test_pages_of_the_origins_that_are_named_may_call_and_no_others() -> None:
    mine, other = "https://mine.example", "https://other.example"
    async with http_gateway(RouterDouble(answer=[5]), cors_origin=[mine]) as client:
        asks = {
            hdrs.ACCESS_CONTROL_REQUEST_METHOD: "POST",
            hdrs.ACCESS_CONTROL_REQUEST_HEADERS: "authorization,content-type",
        }
        preflight = await client.ask("OPTIONS", CHAT, headers={"Origin": mine} | asks)
        assert preflight.status == 204
        assert preflight.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] == mine
        assert preflight.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] == "authorization,content-type"
        assert "POST" in preflight.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS]
        for answer in (
            await client.text(headers={"Origin": mine}),
            await client.text(headers={"Origin": mine}, stream=True),
            await client.text(headers={"Origin": mine}, model="x"),
        ):
            assert answer.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] == mine
            assert "X-Request-Id" in answer.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS]
            assert answer.headers[hdrs.VARY] == "Origin"
        refused = await client.ask("OPTIONS", CHAT, headers={"Origin": other} | asks)
        assert refused.status == 403
        for answer in (refused, await client.text(headers={"Origin": other})):
            assert hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in answer.headers


async def test_a_page_that_nobody_named_begins_no_work() -> None:
    mine, router = "https://mine.example", RouterDouble(answer=[5])
    async with http_gateway(router, cors_origin=[mine]) as client:
        body = {"data": json.dumps({"prompt": "a"})}
        kinds = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "")
        for origin in ("https://other.example", "null", f"http://127.0.0.1:{client.port}"):
            for kind in (*kinds, "application/json"):
                headers = {"Origin": origin, "Content-Type": kind}
                answer = await client.ask("POST", TEXT, headers=headers, **body)
                assert (answer.status, answer.error["code"]) == (403, "origin_not_allowed")
        for kind in kinds:  # nor one that may call, unasked
            headers = {"Origin": mine, "Content-Type": kind}
            answer = await client.ask("POST", TEXT, headers=headers, **body)
            assert (answer.status, answer.error["code"]) == (415, "unsupported_media_type")
            assert answer.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] == mine
        assert router.submits.empty()
        for kind in ("application/json; charset=utf-8", "application/vnd.x+JSON"):
            headers = {"Origin": mine, "Content-Type": kind}
            assert (await client.ask("POST", TEXT, headers=headers, **body)).status == 200


async def test_a_body_of_another_type_is_refused_but_what_curl_says_of_all() -> None:
    async with http_gateway(RouterDouble(answer=[5])) as client:
        body = {"data": json.dumps({"prompt": "a"})}
        for kind, status in (
            ("text/plain", 415),
            ("multipart/form-data; boundary=x", 415),
            ("application/x-www-form-urlencoded", 200),
            ("application/octet-stream", 200),
        ):
            answer = await client.ask("POST", TEXT, headers={"Content-Type": kind}, **body)
            assert answer.status == status
        untold = {"skip_auto_headers": ["Content-Type"], **body}
        assert (await client.ask("POST", TEXT, **untold)).status == 200
        page = {"Sec-Fetch-Site": "same-origin"}
        assert (await client.ask("POST", TEXT, headers=page, **untold)).status == 415


async def test_on_the_loopback_a_gateway_without_keys_has_local_names_alone() -> None:
    named = ["https://mine.example"]
    async with http_gateway(RouterDouble(answer=[5]), cors_origin=named) as client:
        for host, status in (
            ("evil.example:8000", 403),
            ("localhost.evil.example", 403),
            ("[nonsense", 403),
            ("", 403),
            ("localhost:1", 200),
            ("127.0.0.1", 200),
            ("[::1]:8000", 200),
            ("api.localhost", 200),
            ("mine.example:8000", 200),
        ):
            for path in ("/health", "/v1/models"):
                answer = await client.get(path, headers={"Host": host})
                assert answer.status == status, host
    async with http_gateway(RouterDouble(answer=[5]), cors_origin=["*"]) as client:
        headers = {"Host": "evil.example", "Origin": "https://evil.example"}
        assert (await client.text(headers=headers)).status == 200


async def test_who_shows_a_key_may_be_a_page_and_call_us_by_any_name(
    tmp_path: Path, key: str
) -> None:
    async with http_gateway(RouterDouble(answer=[5]), tokens=tmp_path / "tokens") as client:
        headers = {"x-api-key": key, "Origin": "https://a.example", "Host": "b.example"}
        assert (await client.text(headers=headers)).status == 200


async def test_what_aiohttp_answers_by_itself_is_told_as_everything_is() -> None:
    async with http_gateway(RouterDouble(answer=[5]), trace_url="http://traces/") as client:
        sent = (
            (b"nonsense\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\na: \x00\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\nHost: localhost\r\na: " + b"x" * 9000 + b"\r\n\r\n", 400),
            (b"GET /x HTTP/1.1\r\nHost: localhost\r\nExpect: much\r\n\r\n", 417),
            (b"POST /ping HTTP/1.1\r\nHost: localhost\r\nExpect: much\r\n\r\n", 417),
        )
        for request, status in sent:
            reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
            assert int(head.split()[1]) == status
            assert {"X-Request-Id", "traceresponse", "Link"} <= lines.keys()
            body = await reader.readexactly(int(lines["Content-Length"]))
            assert json.loads(body)["error"]["type"] == "invalid_request_error"
            writer.close()


async def test_every_response_names_its_request_and_its_trace() -> None:
    async with http_gateway(RouterDouble(answer=[5]), trace_url="http://traces/") as client:
        named = {"X-Request-Id": "mine-1", "traceparent": TRACEPARENT}
        for answer in (
            await client.text(headers=named),
            await client.text(headers=named, stream=True),
            await client.text(headers=named, model="x"),
            await client.get("/nothing", headers=named),
            await client.get("/health", headers=named),
        ):
            assert answer.headers["X-Request-Id"] == "mine-1"
            trace = SpanRef.parse(answer.headers["traceresponse"])
            assert trace is not None
            assert trace.trace_id.hex() in TRACEPARENT
            assert answer.headers["Link"] == (
                f'<http://traces/trace/{trace.trace_id.hex()}>; rel="trace"'
            )
        for insane in ("x" * 129, "a b", "<script>", ""):
            answer = await client.text(headers={"X-Request-Id": insane, "traceparent": "nonsense"})
            assert answer.headers["X-Request-Id"] not in ("", insane)
            assert SpanRef.parse(answer.headers["traceresponse"]) is not None


async def test_a_trace_goes_on_at_the_router() -> None:
    router = RouterDouble(answer=[5])
    async with http_gateway(router) as client:
        await client.text(headers={"traceparent": TRACEPARENT, "tracestate": "a=b"})
        asked = await router.next_sequence()
        await client.text()
        untraced = await router.next_sequence()
    assert asked.trace.traceparent == TRACEPARENT
    assert asked.trace.tracestate == "a=b"
    assert untraced.trace.traceparent == ""


async def test_fields_that_nobody_knows_are_named_or_refused() -> None:
    async with http_gateway(RouterDouble(answer=[5])) as client:
        answer = await client.text(foo=1, user="u")
        known = await client.text(user="u")
    assert (answer.status, answer.headers["X-Moesaic-Ignored"]) == (200, "foo")
    assert "X-Moesaic-Ignored" not in known.headers
    async with http_gateway(RouterDouble(answer=[5]), strict_fields=True) as client:
        answer = await client.text(foo=1)
        assert (answer.status, answer.error["param"]) == (400, "foo")
        assert (await client.text(user="u")).status == 200


async def test_told_to_stop_it_finishes_what_it_accepted_and_refuses_what_is_new() -> None:
    router = RouterDouble()
    async with aiohttp.ClientSession() as session:
        async with running_gateway(
            router, http_listen="127.0.0.1:0", drain_seconds=20
        ) as grpc_client:
            base = f"http://127.0.0.1:{grpc_client.http_port}"
            body = {"prompt": "a", "stream": True}
            posting = asyncio.create_task(session.post(base + TEXT, json=body))
            number = (await router.next_sequence()).sequence

            async def end_while_draining() -> int:
                while (await session.get(f"{base}/health")).status == 200:  # noqa: ASYNC110 -- no event of this side
                    await asyncio.sleep(0.01)
                refused = await session.post(base + TEXT, json=body)
                router.say(token(number, 5), finished(number))
                return refused.status

            ending = asyncio.create_task(end_while_draining())
        assert await ending == 503
        async with await posting as response:
            assert (await response.read()).endswith(b"data: [DONE]\n\n")
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.get(f"{base}/health")


async def test_what_does_not_finish_in_time_is_cut_off_and_not_ended_well() -> None:
    router = RouterDouble()
    async with aiohttp.ClientSession() as session:
        async with running_gateway(
            router, http_listen="127.0.0.1:0", drain_seconds=0.05
        ) as grpc_client:
            url = f"http://127.0.0.1:{grpc_client.http_port}{TEXT}"
            posting = asyncio.create_task(session.post(url, json={"prompt": "a", "stream": True}))
            number = (await router.next_sequence()).sequence
            router.say(token(number, 5))
            response = await posting
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_a_port_in_use_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PortInUse, match=f"cannot listen on {address} for HTTP"):
            async with gateway(GatewaySettings(listen="127.0.0.1:0", http_listen=address)):
                pass
