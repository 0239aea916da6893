"""The committed stubs are those of the protos, and the protos pass their linter."""

import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf.descriptor_pb2 import (
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from moesaic.v1 import common_pb2, expert_pb2, generation_pb2, placement_pb2, router_pb2

PROTOS = Path(__file__).parents[1] / "protos"
STUBS = (common_pb2, expert_pb2, generation_pb2, placement_pb2, router_pb2)


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = Path(sysconfig.get_path("scripts")) / "buf"
    return subprocess.run(
        [str(command), *arguments],
        cwd=PROTOS,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    image = tmp_path_factory.mktemp("image") / "protos.binpb"
    built = buf(
        "build", "--as-file-descriptor-set", "--exclude-source-info", "--output", str(image)
    )
    assert built.returncode == 0, built.stderr
    return {file.name: file for file in FileDescriptorSet.FromString(image.read_bytes()).file}


def test_every_proto_has_its_stub(compiled: dict[str, FileDescriptorProto]) -> None:
    assert {stub.DESCRIPTOR.name for stub in STUBS} == set(compiled)


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.DESCRIPTOR.name)
def test_a_stub_is_what_its_proto_says(
    stub: ModuleType, compiled: dict[str, FileDescriptorProto]
) -> None:
    committed = FileDescriptorProto.FromString(stub.DESCRIPTOR.serialized_pb)
    source = compiled[committed.name]
    for field in _json_names(source):
        field.ClearField("json_name")  # buf writes it out, protoc leaves it to be derived
    for field in _json_names(committed):
        field.ClearField("json_name")
    assert committed == source, "the stubs are stale: run make stubs"


def test_the_protos_pass_their_linter() -> None:
    linted = buf("lint")
    assert linted.returncode == 0, linted.stdout


def _json_names(file: FileDescriptorProto) -> list[FieldDescriptorProto]:
    messages = [inner for message in file.message_type for inner in (message, *message.nested_type)]
    return [field for message in messages for field in message.field]
