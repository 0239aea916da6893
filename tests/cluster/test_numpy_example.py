"""An expert service that is written from the proto alone does what ours does, and ours what the
proto says.
"""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from examples.numpy_expert_service import serving
from services.model.digest import ContentHash, checkpoint_digest
from services.model.tensor_files import TensorFiles
from tests.checkpoints import save_tiny
from tests.cluster import local
from tests.cluster.oracle import prompts_of
from tests.cluster.router_client import connected

PROTO = Path(__file__).parents[2] / "protos/moesaic/v1/expert.proto"
VECTORS = re.findall(r"give\n  // ([0-9a-f]{32})\.", PROTO.read_text())


def test_the_vectors_of_the_proto_are_what_is_computed(tmp_path: Path) -> None:
    save_file({"t": torch.tensor([1.0, 2.0])}, tmp_path / "model.safetensors")
    digest = checkpoint_digest({"b": 0.00001, "a": [1, "é"]}, TensorFiles.open(tmp_path))
    content, weights = ContentHash(), [torch.tensor(w) for w in ([[3.0, 4.0]], [[5.0, 6.0]])]
    content.add("down_proj", [(torch.tensor([[1.0], [2.0]]),)])
    content.add("gate_up_proj", [(weight,) for weight in weights])
    assert [digest, content.value().hex()] == VECTORS


async def generated(model: Path, experts: list[str], **settings: int) -> list[list[int]]:
    async with local.router(model, experts, **settings) as router, connected(router) as client:
        prompts = prompts_of([3, 9], 64)
        return [each.tokens for each in await client.generate(prompts, max_new_tokens=6)]


async def test_a_router_generates_the_same_over_a_service_in_numpy(tmp_path: Path) -> None:
    """Its weights are loaded, its trial frame and its requests computed."""
    model = save_tiny("olmoe", tmp_path)
    async with serving(model) as other, local.expert(model) as ours:
        reference = await generated(model, [ours])
        assert all(reference)
        assert await generated(model, [other]) == reference
        assert await generated(model, [ours, other], coverage=2) == reference
