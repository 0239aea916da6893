"""What bench.real_size makes, reads and figures out; nothing here is of real size."""

from pathlib import Path

import numpy as np
import pytest

from bench.harness.failure import BenchFailed
from bench.harness.progress import Stages
from bench.harness.report import Report
from bench.harness.statistics import Spread
from bench.hosting.streams import Answer
from bench.real_size.__main__ import PARTS, parts_of
from bench.real_size.checkpoint import checkpoint_of
from bench.real_size.disturbed import Kill, Moves, longest_silence
from bench.real_size.embedded import EmbeddedStarts
from bench.real_size.memory import Taken, require_memory
from bench.real_size.peers import PeerResult, llama_result, vllm_seconds
from bench.real_size.prompt import FirstToken
from bench.real_size.reading import experts_of, seconds_to_read, whole_files
from bench.real_size.served import ServedCluster
from bench.real_size.sizes import OLMOE_3B, OLMOE_7B, QUICK, Size
from bench.real_size.tables import Found, Start, fill
from bench.real_size.tokens import Rates, decode_rate, mean_active
from bench.rig.checkpoints import Shape
from bench.rig.generated import Generated
from bench.rig.kernel import fields_of
from moesaic.v1 import router_pb2
from services.model.checkpoint import Checkpoint

TINY = Size("tiny", Shape(64, 2, 4, 2, 32), 128)
# As llama.cpp's README has it, without fields that nothing here reads.
LLAMA_BENCH = b"""[
  {
    "build_commit": "8cf427ff", "build_number": 5163, "model_type": "qwen2 7B Q4_K - Medium",
    "n_threads": 8, "n_prompt": 512, "n_gen": 0, "n_depth": 0,
    "test_time": "2025-04-24T11:58:50Z", "avg_ns": 72135640, "stddev_ns": 1453752,
    "avg_ts": 7100.002165, "stddev_ts": 140.341520,
    "samples_ns": [ 74601900, 71632900, 71745200, 71952700, 70745500 ]
  },
  {
    "build_commit": "8cf427ff", "build_number": 5163, "model_type": "qwen2 7B Q4_K - Medium",
    "n_threads": 8, "n_prompt": 0, "n_gen": 128, "n_depth": 0,
    "test_time": "2025-04-24T11:58:51Z", "avg_ns": 1076767880, "stddev_ns": 9449585,
    "avg_ts": 118.881588, "stddev_ts": 1.041811,
    "samples_ns": [ 1075361300, 1065089400, 1071761200, 1081934900, 1089692600 ]
  }
]"""
# As `vllm bench latency --output-json` writes it.
VLLM_LATENCY = """{
    "avg_latency": 10.5, "std_latency": 0.3, "latencies": [10.2, 10.4, 10.9],
    "percentiles": {"10": 10.24, "25": 10.3, "50": 10.4, "75": 10.65, "90": 10.8, "99": 10.89}
}"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_of(TINY, Stages(), tmp_path_factory.mktemp("models"))


def test_a_checkpoint_is_one_that_is_served(model: Path) -> None:
    checkpoint = Checkpoint.open(model)
    assert checkpoint.moe_layers == (0, 1)
    assert checkpoint.expert_bytes(0) == TINY.expert_bytes
    weights = checkpoint.read_expert(1, 3)
    assert 0.01 < float(next(iter(weights.values())).float().std()) < 0.03


def test_a_size_knows_its_files_bytes(model: Path) -> None:
    values = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    headers = sum(
        8 + int.from_bytes(path.read_bytes()[:8], "little") for path in model.glob("*.safetensors")
    )
    assert values - headers == TINY.total_bytes


def test_a_checkpoint_is_made_once(model: Path) -> None:
    before = [path.stat().st_mtime_ns for path in sorted(model.iterdir())]
    assert checkpoint_of(TINY, Stages(), model.parent) == model
    assert [path.stat().st_mtime_ns for path in sorted(model.iterdir())] == before


def test_a_disk_without_room_is_told_by_how_much(tmp_path: Path) -> None:
    boundless = Size("boundless", Shape(1 << 20, 1 << 10, 1 << 10, 8, 1 << 20), 1 << 20)
    with pytest.raises(BenchFailed, match=r"GB are missing"):
        checkpoint_of(boundless, Stages(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_memory_that_is_not_there_is_refused() -> None:
    with pytest.raises(BenchFailed, match=r"a cluster takes about .* GB of memory"):
        require_memory(1 << 60, "a cluster")
    require_memory(0, "nothing")


@pytest.mark.parametrize(
    ("size", "gigabytes"), [(OLMOE_7B, (13.5, 14.0)), (OLMOE_3B, (6.0, 6.5)), (QUICK, (0.9, 1.1))]
)
def test_sizes_are_what_they_are_called(size: Size, gigabytes: tuple[float, float]) -> None:
    least, most = gigabytes
    assert least < size.total_bytes / 1e9 < most


def test_the_pieces_of_experts_are_their_bytes(model: Path) -> None:
    pieces = experts_of(model, [(0, 1), (1, 3)])
    assert sum(piece.end - piece.begin for piece in pieces) == 2 * TINY.expert_bytes
    assert seconds_to_read(pieces) > 0
    assert seconds_to_read(whole_files(model)) > 0


def test_decode_is_counted_while_every_request_decodes() -> None:
    # Both have tokens at 2, 3 and 4; the first token and what comes after 4 do not count.
    assert decode_rate([[0.5, 1, 2, 3, 4], [1, 2, 3, 4, 5, 6]]) == pytest.approx(6 / 3)


def test_active_experts_are_those_of_whole_decode_steps() -> None:
    prompt, decode, short = [[[0, 1], [2, 3]]], [[[0, 1], [1, 2]]], [[[0, 3]]]
    experts = np.array(prompt[0] + decode[0] + short[0], dtype="<u2").reshape(1, 5, 2)
    response = router_pb2.RecordRoutingResponse(
        num_experts=4,
        num_layers=1,
        num_experts_per_token=2,
        rows=[2, 2, 1],
        is_decode=[False, True, True],
        experts=experts.tobytes(),
    )
    assert mean_active([response], 2) == 3
    with pytest.raises(BenchFailed, match="no step decoded 7 requests"):
        mean_active([response], 7)


def answer(*arrivals: float, failed_at: float | None = None) -> Answer:
    """One that began at 0."""
    failure = None if failed_at is None else "UNAVAILABLE"
    return Answer(0, 0.0, list(arrivals), failure=failure, ended=failed_at or arrivals[-1])


def test_silence_is_of_all_streams_together() -> None:
    one, other = answer(1, 2, 8, 9), answer(1, 5, 9)
    assert longest_silence([one], 0, 10) == 6
    assert longest_silence([one, other], 0, 10) == 3
    assert longest_silence([answer(1, 2, failed_at=7)], 3, 10) == 5
    assert longest_silence([one], 8.5, 10) == 1
    assert longest_silence([answer(1)], 0, 10) == 0


def test_a_cluster_is_known_by_what_serve_says() -> None:
    cluster = ServedCluster()
    for line in (
        "starting the cluster",
        "expert-0  127.0.0.1:24001       pid 11      512 of 1024 experts, 6144.0 MiB on cpu",
        "expert-1  127.0.0.1:24002       pid 12      512 of 1024 experts, 6144.0 MiB on cpu",
        "router    127.0.0.1:24003       pid 13      olmoe (olmoe) without its experts",
        "gateway   127.0.0.1:24004       pid 14      serves olmoe, context 4096 tokens",
    ):
        cluster.take(line)
    assert sorted(cluster.experts) == ["expert-0", "expert-1"]
    assert cluster.members["gateway"].address == "127.0.0.1:24004"
    cluster.take("expert-1 is ready again, pid 99")
    assert [member.pid for member in cluster.experts.values()] == [11, 99]


def test_fields_of_proc_are_in_bytes() -> None:
    rollup = "55d-7ff ---p 00000000 00:00 0   [rollup]\nRss:   20 kB\nAnonymous:      12 kB\n"
    assert fields_of(rollup) == {"Rss": 20 * 1024, "Anonymous": 12 * 1024}


def test_what_llama_bench_says_is_read() -> None:
    assert llama_result(LLAMA_BENCH) == PeerResult(
        "llama.cpp 5163, qwen2 7B Q4_K - Medium",
        1,
        decode_tokens_per_second=118.881588,
        first_token_ms=72.13564,
    )


def test_what_vllm_writes_is_read() -> None:
    assert vllm_seconds(VLLM_LATENCY) == 10.4


def test_parts_are_those_that_there_are() -> None:
    assert parts_of("kill, moves") == ("kill", "moves")
    assert set(PARTS) >= {"tokens", "prompt", "start", "kill", "moves", "memory"}
    with pytest.raises(Exception, match="'lunch' is none of"):
        parts_of("lunch")


def test_every_part_has_its_table_and_its_ratio() -> None:
    generated = Generated(2.0, [[1.0, 1.5, 2.0]], [[1, 2, 3]])
    rates = Rates(TINY, 1, num_active=4.0, samples=[generated], memory_rates=[8e9])
    found = Found(
        [Start(TINY, 1, 12.0, 8.0)],
        [rates],
        {"tiny": FirstToken([30.0])},
        [Kill(TINY, 1, 100, 4.0, 9, ["UNAVAILABLE"], 6.0, 7.0, 0.2, 9.0)],
        [Moves(TINY, 10, 2.0, True, False, 0, 0.4, 0.2)],
        [Taken("ready", "expert-0", 300, 200)],
        [PeerResult("vLLM", 1, tokens_per_second=2.5)],
        EmbeddedStarts([4.0, 5.0], [5.0, 6.0], [7.0, 8.0]),
    )
    report = Report("real_size", "")
    fill(report, found)
    embedded, starts, shown_rates, prompts, kills, moves, taken, peers = report.tables
    assert [row[1].median for row in embedded.rows if isinstance(row[1], Spread)] == [4.5, 5.5, 7.5]
    assert starts.rows[0][-1] == 1.5
    assert kills.rows[0][-1] == 1.5
    assert moves.rows[0][-1] == pytest.approx(2.0)
    assert taken.rows[0][4] == 1.5
    assert prompts.rows == [("tiny", "the cluster", Spread(30.0, 30.0, 30.0, 1), None)]
    assert peers.rows == [("vLLM, 1", 2.5, None, None)]
    limit = 8e9 / (TINY.trunk_step_bytes + 4 * TINY.expert_bytes)
    share = shown_rates.rows[0][-1]
    assert isinstance(share, Spread)
    assert share.median == pytest.approx(2.0 / limit)
    assert report.samples["kills"][0]["failures"] == ["UNAVAILABLE"]
