"""The commands that show and change who hosts what, against a real router and real
expert services.
"""

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from moesaic.v1 import placement_pb2_grpc, router_pb2
from services.cli.main import USAGE_EXIT, main
from services.wire.errors import BadState
from tests.checkpoints import save_tiny
from tests.cli.command_line import moesaic, start
from tests.cli.command_line import scripted as scripted_server
from tests.cluster import local

EVERYTHING = {"0": "0-7", "1": "0-7", "2": "0-7"}
NUM_EXPERTS = 24


pytestmark = pytest.mark.usefixtures("gradients_as_before")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("olmoe", Path(tmp_path_factory.mktemp("models")) / "olmoe")


async def shown(router: str) -> dict[str, Any]:
    code, stdout, _ = await moesaic("placement", "show", "--router", router, "--json")
    assert code == 0
    return json.loads(stdout)


async def hosted(router: str) -> dict[str, int]:
    return {
        service["address"]: service["num_experts"] for service in (await shown(router))["services"]
    }


async def until_hosted(router: str, wanted: dict[str, int]) -> None:
    async with asyncio.timeout(30):
        while await hosted(router) != wanted:
            pass


async def test_a_placement_is_shown_as_tables_and_as_an_object(model: Path) -> None:
    async with local.experts(model, 2) as (one, two), local.router(model, [one, two]) as router:
        code, stdout, _ = await moesaic("placement", "show", "--router", router)
        assert code == 0
        for address in (one, two):
            (line,) = (line for line in stdout.splitlines() if line.startswith(address))
            assert line.split()[1:3] == ["live", "cpu"]
            assert line.split()[-2:] == ["12", "4"]
        assert "layer 1  11111111\n" in stdout
        assert "!" not in stdout
        read = await shown(router)
        assert (read["coverage"], read["min_live_replicas"], read["uncovered"]) == (1, 1, {})
        assert {service["state"] for service in read["services"]} == {"live"}
        code, stdout, _ = await moesaic("experts", "list", "--router", router)
        assert code == 0
        assert "layer 1" not in stdout
        assert stdout.count("live") == 2


async def test_experts_below_the_coverage_are_warned_of(model: Path) -> None:
    async with local.experts(model, 1) as (one,), local.router(model, [one], coverage=2) as router:
        _, stdout, _ = await moesaic("placement", "show", "--router", router)
        assert (
            "! 24 experts (layer/expert) are ready on too few services, coverage 2: 0/0, 0/1, "
            "0/2, 0/3, 0/4, 0/5, 0/6, "
            "0/7, …\n" in stdout
        )
        assert (await shown(router))["uncovered"] == EVERYTHING


async def test_what_was_exported_can_be_changed_and_applied(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "placement.json"
    async with local.experts(model, 2) as (one, two), local.router(model, [one, two]) as router:
        code, _, stderr = await moesaic("placement", "export", "--router", router, str(file))
        assert (code, stderr) == (0, f"wrote {file}\n")
        document = json.loads(file.read_text())
        assert document["services"].keys() == {one, two}
        document["services"] = {one: {"0": "0-7"}, two: {"0": "0", "1": "0-7", "2": "0-7"}}
        file.write_text(json.dumps(document))
        code, _, stderr = await moesaic("placement", "apply", "--router", router, str(file))
        assert code == 0, stderr
        assert stderr.splitlines()[-1].startswith("done: ")
        layers = {
            service["address"]: service["layers"] for service in (await shown(router))["services"]
        }
        assert layers == document["services"]
        _, stdout, _ = await moesaic("placement", "export", "--router", router)
        assert json.loads(stdout) == document
        code, _, stderr = await moesaic("placement", "apply", "--router", router, "-", stdin=stdout)
        assert stderr.startswith("done: nothing had to change, ")


async def test_a_placement_that_loses_an_expert_is_refused_in_one_line(model: Path) -> None:
    async with local.experts(model, 1) as (one,), local.router(model, [one]) as router:
        document = json.dumps({"services": {one: EVERYTHING | {"1": "0-6"}}})
        code, _, stderr = await moesaic(
            "placement", "apply", "--force", "--router", router, "-", stdin=document
        )
        assert code == 1
        assert stderr == (
            "moesaic placement apply: FAILED_PRECONDITION: expert 7 of layer 1 would be on no "
            "service "
            f"(router {router})\n"
        )


async def test_a_service_that_is_added_is_given_experts_and_one_that_drains_gives_them_away(
    model: Path,
) -> None:
    async with (
        local.experts(model, 2) as (one, two),
        local.router(model, [one]) as router,
    ):
        assert await hosted(router) == {one: NUM_EXPERTS}
        code, _, stderr = await moesaic("experts", "add", "--router", router, two)
        assert (code, stderr) == (
            0,
            f"the router knows 2 services now: {', '.join(sorted([one, two]))}\n",
        )
        await until_hosted(router, {one: NUM_EXPERTS // 2, two: NUM_EXPERTS // 2})
        code, _, stderr = await moesaic("experts", "drain", "--router", router, one)
        assert code == 0, stderr
        assert stderr.splitlines()[-1] == f"{one} hosts nothing any more and can be stopped"
        assert await hosted(router) == {one: 0, two: NUM_EXPERTS}
        assert {service["state"] for service in (await shown(router))["services"]} == {
            "live",
            "draining",
        }
        code, _, stderr = await moesaic("experts", "remove", "--router", router, one)
        assert (code, stderr) == (0, f"the router knows 1 services now: {two}\n")
        assert await hosted(router) == {two: NUM_EXPERTS}


async def test_a_drain_below_the_coverage_is_refused_unless_forced(model: Path) -> None:
    async with (
        local.experts(model, 2) as (one, two),
        local.router(model, [one, two], coverage=2) as router,
    ):
        await until_hosted(router, {one: NUM_EXPERTS, two: NUM_EXPERTS})
        code, _, stderr = await moesaic("experts", "drain", "--router", router, one)
        assert code == 1
        assert stderr.startswith("moesaic experts drain: FAILED_PRECONDITION: ")
        assert stderr.count("\n") == 1
        assert await hosted(router) == {one: NUM_EXPERTS, two: NUM_EXPERTS}
        code, _, stderr = await moesaic("experts", "drain", "--force", "--router", router, one)
        assert code == 0, stderr
        assert await hosted(router) == {one: 0, two: NUM_EXPERTS}


async def test_a_rebalance_spreads_every_layer_evenly(model: Path) -> None:
    async with local.experts(model, 2) as (one, two), local.router(model, [one, two]) as router:
        document = json.dumps({"services": {one: EVERYTHING | {"1": "0-6"}, two: {"1": "7"}}})
        code, _, stderr = await moesaic(
            "placement", "apply", "--router", router, "-", stdin=document
        )
        assert code == 0, stderr
        assert await hosted(router) == {one: NUM_EXPERTS - 1, two: 1}
        code, _, stderr = await moesaic("rebalance", "--even", "--router", router)
        assert code == 0, stderr
        assert await hosted(router) == {one: NUM_EXPERTS // 2, two: NUM_EXPERTS // 2}


async def test_a_served_cluster_has_the_coverage_asked_for_and_commands_find_it(
    tmp_path: Path,
) -> None:
    command = (
        sys.executable,
        "-m",
        "services.cli.main",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--http-listen=off",
        "--coverage",
        "2",
    )
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env=os.environ | {"TMPDIR": str(tmp_path)}
    )
    try:
        assert process.stderr is not None
        while not (line := (await process.stderr.readline()).decode()).startswith("ready: "):
            assert line, "it ended before it was ready"
        shown: tuple[object, ...] = ()
        async with asyncio.timeout(
            30
        ):  # it serves from the first replica on; the second comes right behind
            while shown != (2, 2, {}):
                code, stdout, _ = await moesaic("placement", "show", "--json")
                assert code == 0
                read = json.loads(stdout)
                shown = read["coverage"], read["min_live_replicas"], read["uncovered"]
    finally:
        process.terminate()
        await process.communicate()


class ScriptedRouter(placement_pb2_grpc.PlacementServiceServicer):
    """Begins every change and goes no further until it is let."""

    def __init__(self) -> None:
        self.requests: list[router_pb2.ChangePlacementRequest] = []
        self.refusal: BadState | None = None
        self.begun, self.left, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.address = ""

    async def ChangePlacement(
        self, request: router_pb2.ChangePlacementRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[router_pb2.ChangePlacementResponse]:
        self.requests.append(request)
        if self.refusal is not None:
            raise self.refusal
        try:
            yield router_pb2.ChangePlacementResponse(
                operation_id=request.operation_id,
                phase=router_pb2.OPERATION_PHASE_LOADING,
                num_total=7,
            )
            self.begun.set()
            await self.may_end.wait()
        finally:
            self.left.set()


@pytest.fixture
async def scripted() -> AsyncIterator[ScriptedRouter]:
    router = ScriptedRouter()
    async with scripted_server(
        placement_pb2_grpc.add_PlacementServiceServicer_to_server, router
    ) as router.address:
        yield router


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_who_breaks_off_is_told_that_the_operation_goes_on(
    scripted: ScriptedRouter, number: signal.Signals, code: int
) -> None:
    process = await start(
        "rebalance", "--even", "--router", scripted.address, "--operation-id", "night"
    )
    assert process.stderr is not None
    assert await process.stderr.readline() == b"operation night: loading, 7 changes in all\n"
    process.send_signal(number)
    await scripted.left.wait()
    _, stderr = await process.communicate()
    assert process.returncode == code
    assert (
        stderr
        == b"operation night goes on in the router; the same command with --operation-id night "
        b"follows it\n"
    )


async def test_an_operation_that_takes_longer_than_it_is_followed_goes_on(
    scripted: ScriptedRouter,
) -> None:
    code, _, stderr = await moesaic(
        "experts", "drain", "--router", scripted.address, "--timeout", "1", "10.0.0.1:1"
    )
    name = scripted.requests[0].operation_id
    assert code == 1
    assert f"operation {name} goes on in the router" in stderr
    assert "moesaic experts drain: DEADLINE_EXCEEDED: " in stderr
    assert scripted.requests[0].drain.address == "10.0.0.1:1"


async def test_a_stream_that_ends_before_the_operation_is_done_is_a_failure(
    scripted: ScriptedRouter,
) -> None:
    scripted.may_end.set()
    code, _, stderr = await moesaic(
        "rebalance", "--even", "--router", scripted.address, "--operation-id", "night"
    )
    assert code == 1
    assert stderr.endswith(
        "moesaic rebalance: the router ended the stream before operation night was done\n"
    )


async def test_each_operation_has_a_name_of_its_own(scripted: ScriptedRouter) -> None:
    scripted.refusal = BadState("operation other is under way")
    for _ in range(2):
        code, _, stderr = await moesaic(
            "rebalance", "--even", "--force", "--router", scripted.address
        )
        assert code == 1
        refusal = f"FAILED_PRECONDITION: operation other is under way (router {scripted.address})"
        assert stderr == f"moesaic rebalance: {refusal}\n"
    one, other = scripted.requests
    assert one.operation_id != other.operation_id
    assert one.force


async def test_a_router_that_is_not_there_is_one_line(unused_tcp_port: int) -> None:
    code, _, stderr = await moesaic("experts", "list", "--router", f"127.0.0.1:{unused_tcp_port}")
    assert code == 1
    assert stderr.startswith("moesaic experts list: nothing listens on ")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["placement", "shw"],
            "moesaic placement: no action 'shw', did you mean show?; see moesaic placement --help",
        ),
        (
            ["rebalance", "--even", "--strategy", "eplb"],
            "moesaic rebalance: --even asks nothing of the load and ",
        ),
        (
            ["rebalance", "--strategy", "best"],
            "--strategy (MOESAIC_ADMIN_STRATEGY): 'best': it should be 'balanced'",
        ),
        (
            ["placement", "plan", "--file", "-", "--strategy", "eplb"],
            "moesaic placement plan: --file gives a ",
        ),
        (
            ["placement", "plan", "--file", "/absent.json"],
            "plan: /absent.json: No such file or directory",
        ),
        (
            ["experts", "list", "--router", "nowhere:"],
            "'nowhere:': it should be host:port, and '' is no port",
        ),
        (
            ["experts", "add", "nowhere:"],
            "'nowhere:': it should be host:port, and '' is no port",
        ),
        (
            ["placement", "apply", "/absent.json"],
            "moesaic placement apply: /absent.json: No such file or directory",
        ),
        (["placement", "apply", "-"], "moesaic placement apply: -: it is no JSON: "),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_asked(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == USAGE_EXIT
    stdout, stderr = capsys.readouterr()
    assert (stdout, stderr.count("\n")) == ("", 1)
    assert said in stderr
