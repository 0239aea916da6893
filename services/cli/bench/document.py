"""The JSON of a bench: settings, figures and every sample; docs/benchmarking.md tells what each
name means.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict

from moesaic.v1 import generation_pb2
from services.cli.bench.figures import Figures
from services.cli.bench.loads import ClosedLoop, OfferedLoad
from services.cli.bench.run import LoadRun
from services.cli.bench.sample import NANOS_PER_SECOND, Sample
from services.cli.bench.settings import BenchSettings
from services.cli.cost import plain
from services.cli.machine import Machine
from services.cli.output_files import written_whole
from services.cli.request import finish_reason_of
from services.wire.errors import InvalidRequest

SCHEMA = "moesaic.bench/1"
# Microseconds; what lies below is noise that only makes the file longer.
DECIMALS = 6


@dataclass
class Findings:
    """Everything that a bench found, so far."""

    settings: BenchSettings
    machine: Machine
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    address: str = ""
    model: generation_pb2.GetModelResponse | None = None
    interrupted: bool = False
    loads: list[tuple[LoadRun, Figures]] = field(default_factory=list)

    @property
    def figures(self) -> list[Figures]:
        """The figures of each load."""
        return [figures for _, figures in self.loads]

    @property
    def samples(self) -> list[Sample]:
        """The requests of all loads."""
        return [sample for run, _ in self.loads for sample in run.samples]

    def as_object(self) -> dict[str, Any]:
        """The document."""
        return {
            "schema": SCHEMA,
            "began": self.began.isoformat(timespec="seconds"),
            "interrupted": self.interrupted,
            "settings": self.settings.model_dump(mode="json"),
            "machine": self.machine.as_object(),
            "cluster": {
                "address": self.address,
                "is_own": self.settings.address is None and self.settings.http is None,
                "model": _model(self.model) if self.model is not None else None,
            },
            "loads": [
                {
                    "load": _load(run.load),
                    "figures": asdict(figures),
                    "requests": [_request(sample, run.began_nanos) for sample in run.samples],
                }
                for run, figures in self.loads
            ],
        }


def write_document(findings: Findings, path: Path) -> None:
    """Write the document whole or not at all; raises InvalidRequest when it cannot be written."""
    try:
        with written_whole(path) as beside, open(beside, "w", encoding="utf-8") as file:
            json.dump(findings.as_object(), file, ensure_ascii=False, separators=(",", ":"))
            file.write("\n")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be written: {error.strerror}") from error


def _model(model: generation_pb2.GetModelResponse) -> dict[str, Any]:
    read: dict[str, Any] = MessageToDict(
        model, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return read


def _load(load: OfferedLoad) -> dict[str, Any]:
    return {"kind": "closed_loop" if isinstance(load, ClosedLoop) else "open_loop", **asdict(load)}


def _request(sample: Sample, began_nanos: int) -> dict[str, Any]:
    completion = sample.completion
    return {
        "number": sample.number,
        "due_seconds": _seconds(sample.due_nanos, began_nanos),
        "sent_seconds": _seconds(sample.sent_nanos, began_nanos),
        "ended_seconds": None
        if sample.ended_nanos is None
        else _seconds(sample.ended_nanos, began_nanos),
        "token_seconds": _each(sample.arrival_nanos, began_nanos),
        "token_counts": sample.arrival_tokens,
        "failure": None if sample.failure is None else asdict(sample.failure),
        "finish_reason": None if completion is None else finish_reason_of(completion),
        "usage": None if completion is None else plain(completion.usage),
        "receipt": None if completion is None else plain(completion.receipt),
    }


def _each(nanos: Sequence[int], began_nanos: int) -> list[float]:
    return [_seconds(one, began_nanos) for one in nanos]


def _seconds(nanos: int, began_nanos: int) -> float:
    return round((nanos - began_nanos) / NANOS_PER_SECOND, DECIMALS)
