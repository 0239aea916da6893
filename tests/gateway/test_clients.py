"""Clients are known by what they show, and by nothing that they merely say."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from pydantic import SecretStr, ValidationError

from bench.rig.certificates import Certificates
from moesaic.v1 import generation_pb2 as pb
from services.cli.bench.client import LoadClient
from services.cli.bench.prompts import BenchPrompt
from services.cli.bench.settings import BenchSettings
from services.cli.request import RequestFailed, stream
from services.cli.settings import GenerateSettings
from services.cli.tokens import AddTokenSettings, add
from services.gateway.clients import TokenClients
from services.gateway.tokens import (
    RATE,
    TokenFile,
    TokenHolder,
    digest_of,
    line_of,
    new_token,
)
from services.runtime.channels import open_channel
from services.runtime.doorkeeping import host_of
from services.runtime.native_server.asked import ShownCall
from services.runtime.roles import Role
from services.runtime.tls_files import Authority
from services.wire.errors import BadState, Unauthenticated
from tests.gateway.gateway_client import Client, running_gateway
from tests.gateway.router_double import RouterDouble

IDS: dict[str, Any] = {"token_ids": pb.TokenIds(ids=[5])}
IDS_REQUEST = pb.GenerateRequest(**IDS)
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    """Two clients' tokens, by their names; the file is `tokens` in the folder."""
    made = {name: new_token() for name in ("alice", "bob")}
    lines = [line_of(name, token, None) for name, token in made.items()]
    (tmp_path / "tokens").write_text("# who may\n\n" + "".join(lines))
    return made


@asynccontextmanager
async def guarded_gateway(folder: Path, **settings: Any) -> AsyncIterator[Client]:
    router = RouterDouble(answer=[5])
    async with running_gateway(router, tokens=folder / "tokens", **settings) as client:
        yield client


async def test_who_shows_no_known_token_is_refused_whatever_it_asks(
    tmp_path: Path, tokens: dict[str, str]
) -> None:
    async with guarded_gateway(tmp_path) as client:
        await client.complete(**IDS, metadata=bearer(tokens["alice"]))
        hashed = digest_of(tokens["alice"]).hex()
        for metadata in (
            None,
            *map(bearer, ("", "x", hashed, tokens["alice"][:-1], new_token())),
            [("authorization", tokens["alice"])],
            [("authorization", f"Basic {tokens['alice']}")],
        ):
            status, message = await client.refused(**IDS, metadata=metadata)
            assert status is UNAUTHENTICATED
            assert message == "a call needs `authorization: Bearer TOKEN` with a known token"
        for call in (client.stub.GetModel(pb.GetModelRequest()), client.health()):
            with pytest.raises(grpc.aio.AioRpcError, match="UNAUTHENTICATED"):
                await call


async def test_a_rate_is_kept_by_the_name_that_a_token_stands_for(
    tmp_path: Path, tokens: dict[str, str]
) -> None:
    file, second = tmp_path / "tokens", new_token()
    file.write_text(file.read_text() + line_of("alice", second, None))
    async with guarded_gateway(tmp_path, requests_per_second=0.001) as client:
        await client.complete(**IDS, metadata=bearer(tokens["alice"]))
        waiting = client.generate(**IDS, metadata=bearer(second))
        await client.complete(**IDS, metadata=bearer(tokens["bob"]))
        assert not waiting.done()


async def test_a_rate_of_its_own_goes_before_everybodys(tmp_path: Path) -> None:
    slow, fast = new_token(), new_token()
    lines = line_of("slow", slow, 0.001) + line_of("fast", fast, 1000.0)
    (tmp_path / "tokens").write_text(lines)
    async with guarded_gateway(tmp_path, requests_per_second=1.0, max_paced_requests=1) as client:
        for _ in range(3):
            await client.complete(**IDS, metadata=bearer(fast))
        await client.complete(**IDS, metadata=bearer(slow))
        waiting = client.generate(**IDS, metadata=bearer(slow))
        await client.stub.GetModel(pb.GetModelRequest(), metadata=bearer(slow))
        status, message = await client.refused(**IDS, metadata=bearer(slow))
        assert not waiting.done()
    assert (status, "0.001 requests" in message) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)


async def test_what_a_client_says_without_proof_does_not_make_it_another(tmp_path: Path) -> None:
    router = RouterDouble(answer=[5])
    async with running_gateway(router, requests_per_second=0.001) as client:
        await client.complete(**IDS, metadata=bearer("one"))
        waiting = client.generate(**IDS, metadata=bearer("two"))
        await client.stub.GetModel(pb.GetModelRequest())
        assert not waiting.done()


async def test_the_file_is_read_again_and_a_token_taken_back(
    tmp_path: Path, tokens: dict[str, str]
) -> None:
    file = tmp_path / "tokens"
    known = TokenFile(file)
    assert known.holder_of(tokens["bob"]) is not None
    await add(AddTokenSettings(name="carol", file=file))
    file.write_text(line_of("bob", other := new_token(), 2.5))
    assert known.holder_of(tokens["bob"]) is None
    holder = known.holder_of(other)
    assert holder is not None
    assert (holder.name, holder.requests_per_second) == ("bob", 2.5)
    file.write_text("nonsense")
    assert known.holder_of(other) == holder


async def test_a_token_is_printed_once_and_only_its_hash_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tokens"
    for name in ("alice", "bob"):
        await add(AddTokenSettings(name=name, file=file, requests_per_second=3))
    alice, bob = capsys.readouterr().out.split()
    assert alice not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    known = TokenFile(file)
    names = [holder.name for token in (alice, bob) if (holder := known.holder_of(token))]
    assert names == ["alice", "bob"]


@pytest.mark.parametrize(
    "line",
    [
        "alice",
        "alice 12ab",
        f"al/ice {'0' * 64}",
        f"alice {'0' * 64} {RATE}=0",
        f"alice {'0' * 64} {RATE}=nan",
        f"alice {'0' * 64} {RATE}",
        f"alice {'0' * 64} tokens=5",
        f"alice {'Z' * 64}",
    ],
)
def test_a_line_of_another_form_is_refused_by_its_number(tmp_path: Path, line: str) -> None:
    (tmp_path / "tokens").write_text(f"# a remark\n{line}\n")
    with pytest.raises(BadState, match=r"tokens:2: it should be NAME HASH"):
        TokenFile(tmp_path / "tokens")


def test_the_hash_is_blake2b_of_the_token() -> None:
    expected = hashlib.blake2b(b"abc", digest_size=32, person=b"moesaic token").digest()
    assert digest_of("abc") == expected


async def test_clients_with_certificates_are_called_as_these_say(tmp_path: Path) -> None:
    mine = Certificates(tmp_path)
    router = RouterDouble(answer=[5])
    mine.make([Role.CLIENT], name="alice")
    alice = mine.of(Role.CLIENT).read()
    async with running_gateway(
        router, certificates=mine, trust=mine.of(Role.CLIENT), requests_per_second=0.001
    ) as client:
        await client.complete(**IDS)
        waiting = client.generate(**IDS, metadata=bearer("another"))
        mine.make([Role.CLIENT], name="bob")
        assert mine.of(Role.CLIENT).read() != alice
        async with open_channel(client.address, tls=mine.of(Role.CLIENT)) as channel:
            await Client(channel, client.address).complete(**IDS)
        async with open_channel(client.address, tls=mine.of(Role.OPERATOR)) as channel:
            status, _ = await Client(channel, client.address).refused(**IDS)
        assert not waiting.done()
    assert status is grpc.StatusCode.PERMISSION_DENIED


async def test_with_a_token_a_client_needs_no_certificate(
    tmp_path: Path, tokens: dict[str, str], certificates: Certificates
) -> None:
    authority = Authority(certificates.of(Role.CLIENT).authority)
    async with guarded_gateway(tmp_path, certificates=certificates, trust=authority) as client:
        await client.complete(**IDS, metadata=bearer(tokens["alice"]))
        status, _ = await client.refused(**IDS)
    assert status is UNAUTHENTICATED


async def test_a_command_shows_its_token_by_tls_to_whom_it_trusts(
    tmp_path: Path, tokens: dict[str, str], certificates: Certificates
) -> None:
    authority = certificates.of(Role.CLIENT).authority
    trust = Authority(authority)
    async with guarded_gateway(tmp_path, certificates=certificates, trust=trust) as client:
        said: dict[str, Any] = {"prompt": "hello", "address": client.address}
        settings = GenerateSettings(**said, token=SecretStr(tokens["bob"]), tls_authority=authority)
        outcome = await stream([client.address], IDS_REQUEST, settings, lambda _: None)
        assert outcome.token_ids == [5]
        bench = BenchSettings(address=client.address, token=SecretStr(tokens["bob"]))
        load = LoadClient(client.channel, bench, [BenchPrompt("hello")])
        assert (await load.describe()).model == "tessera"
        settings = GenerateSettings(**said, tls_authority=authority)
        with pytest.raises(RequestFailed, match="UNAUTHENTICATED"):
            await stream([client.address], IDS_REQUEST, settings, lambda _: None)


def test_a_token_is_not_shown_to_whoever_listens(tmp_path: Path) -> None:
    said: dict[str, Any] = {"token": "secret", "address": "10.0.0.1:50051"}
    with pytest.raises(ValidationError, match="could read the token"):
        BenchSettings(**said)
    assert BenchSettings(**said, tls_authority=tmp_path).metadata
    assert BenchSettings(**said | {"address": "127.0.0.1:1"}).metadata
    settings = BenchSettings(**said, insecure=True)
    assert settings.metadata == (("authorization", "Bearer secret"),)
    assert "secret" not in settings.model_dump_json()
    assert BenchSettings(token=SecretStr("secret")).metadata == ()


def test_without_either_clients_are_told_apart_by_host() -> None:
    assert host_of("ipv4:10.0.0.1:4000") == host_of("ipv4:10.0.0.1:5000")
    assert host_of("ipv6:%5B::1%5D:4000") == host_of("ipv6:%5B::1%5D:5000")
    assert host_of("ipv4:10.0.0.1:4000") != host_of("ipv4:10.0.0.2:4000")


def test_all_addresses_of_an_ipv6_network_are_one_host() -> None:
    assert host_of("ipv6:%5B2001:db8:1:2::1%5D:4000") == host_of("ipv6:%5B2001:db8:1:2:f::9%5D:1")
    assert host_of("ipv6:%5B2001:db8:1:2::1%5D:4000") != host_of("ipv6:%5B2001:db8:1:3::1%5D:4000")
    assert host_of("ipv6:[fe80::1%eth0]:4000") == host_of("ipv6:%5Bfe80::2%25eth0%5D:4000")
    assert host_of("unix:/run/socket") == "unix:/run/socket"


class CountingFile(TokenFile):
    """Counts how often somebody is looked up."""

    num_lookups = 0

    def holder_of(self, token: str) -> TokenHolder | None:
        self.num_lookups += 1
        return super().holder_of(token)


def test_whose_a_call_is_is_looked_up_once(tmp_path: Path, tokens: dict[str, str]) -> None:
    counting = CountingFile(tmp_path / "tokens")
    clients = TokenClients(counting)
    for number, name in enumerate(tokens, 1):
        call = ShownCall((("authorization", f"Bearer {tokens[name]}"),), "ipv4:10.0.0.1:1", {})
        assert clients.client_of(call).name == name  # at the door
        clients.check("/any.Service/Method", call)
        assert clients.client_of(call).name == name
        assert counting.num_lookups == number


def test_who_has_no_token_is_refused_each_time(tmp_path: Path, tokens: dict[str, str]) -> None:
    clients = TokenClients(TokenFile(tmp_path / "tokens"))
    call = ShownCall((), "ipv4:10.0.0.1:1", {})
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            clients.client_of(call)
