"""What an opened checkpoint says of its model, and its experts as they are read."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from services.model.checkpoint import Checkpoint
from services.model.expert_weights import empty_experts, fill_expert
from services.model.tensor_files import TensorFiles
from services.wire.errors import NotFound
from tests.checkpoints import MAX_CONTEXT, SERVED_FAMILIES, VOCAB_SIZE, save_tiny, tiny_model
from tests.local_experts import build_experts

CPU = torch.device("cpu")


def edit_json(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def experts_in_memory(directory: Path, layer: int) -> dict[str, torch.Tensor]:
    """The parameters of the experts of `layer` as transformers loads them, stacked for
    all experts.
    """
    model = AutoModelForCausalLM.from_pretrained(directory)
    return {
        name.rpartition(".")[2]: weight.detach()
        for name, weight in model.named_parameters()
        if f".layers.{layer}." in name and ".experts." in name
    }


@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_a_checkpoint_says_what_its_model_is(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny(family, tmp_path / "tiny", torch.bfloat16))

    assert checkpoint.name == "tiny"
    assert checkpoint.model_type == family.removesuffix("_longrope")
    assert checkpoint.moe_layers[-1] == 2
    assert (checkpoint.num_experts, checkpoint.num_experts_per_token) == (8, 2)
    assert (checkpoint.hidden_size, checkpoint.vocab_size) == (32, VOCAB_SIZE)
    assert checkpoint.dtype is torch.bfloat16


@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_an_expert_is_read_as_transformers_holds_it(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny(family, tmp_path))
    expected = experts_in_memory(tmp_path, layer=2)

    for expert in range(checkpoint.num_experts):
        weights = checkpoint.read_expert(2, expert)
        assert set(weights) == set(expected)
        for name, weight in weights.items():
            assert torch.equal(weight, expected[name][expert]), name


@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_reading_an_expert_reads_its_bytes_and_no_others(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint.open(save_tiny(family, tmp_path))
    num_bytes: list[int] = []
    read = TensorFiles.read

    def recording(files: TensorFiles, name: str, part: int | None = None) -> torch.Tensor:
        tensor = read(files, name, part)
        num_bytes.append(tensor.nbytes)
        return tensor

    monkeypatch.setattr(TensorFiles, "read", recording)
    weights = checkpoint.read_expert(2, 5)

    assert (
        sum(num_bytes)
        == sum(weight.nbytes for weight in weights.values())
        == checkpoint.expert_bytes(2)
    )


def test_the_size_of_an_expert_follows_the_type_it_is_computed_in(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path))

    assert checkpoint.expert_bytes(0, torch.float32) == 3 * 32 * 24 * 4
    assert checkpoint.expert_bytes(0, torch.bfloat16) == 3 * 32 * 24 * 2


def test_a_sharded_checkpoint_is_the_same_model(tmp_path: Path) -> None:
    single = Checkpoint.open(save_tiny("mixtral", tmp_path / "single"))
    shards = Checkpoint.open(save_tiny("mixtral", tmp_path / "shards", max_shard_size="50KB"))

    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 3
    assert shards.digest == single.digest
    for layer in single.moe_layers:
        for expert in range(single.num_experts):
            ours, theirs = shards.load_expert(layer, expert), single.load_expert(layer, expert)
            assert ours.content_hash == theirs.content_hash
            assert all(
                torch.equal(ours.weights[name], weight) for name, weight in theirs.weights.items()
            )


def test_experts_stored_one_by_one_hash_and_read_as_those_stored_in_one(tmp_path: Path) -> None:
    tiny_model("olmoe").save_pretrained(tmp_path / "single")
    tiny_model("olmoe").save_pretrained(tmp_path / "fused", save_original_format=False)
    single, fused = Checkpoint.open(tmp_path / "single"), Checkpoint.open(tmp_path / "fused")

    assert len(fused.files.infos) < len(single.files.infos)
    assert fused.load_expert(1, 3).content_hash == single.load_expert(1, 3).content_hash
    assert torch.equal(
        fused.read_expert(1, 3)["gate_up_proj"], single.read_expert(1, 3)["gate_up_proj"]
    )


def test_every_expert_has_a_hash_of_its_own(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("granitemoe", tmp_path))

    hashes = {
        checkpoint.content_hash(layer, expert)
        for layer in checkpoint.moe_layers
        for expert in range(8)
    }

    assert {len(content_hash) for content_hash in hashes} == {16}
    assert len(hashes) == 3 * 8


def test_other_weights_have_other_hashes_and_another_digest(tmp_path: Path) -> None:
    first = Checkpoint.open(save_tiny("olmoe", tmp_path / "first", seed=1))
    second = Checkpoint.open(save_tiny("olmoe", tmp_path / "second", seed=2))

    assert first.digest != second.digest
    assert first.content_hash(0, 0) != second.content_hash(0, 0)


def test_the_digest_tells_types_shapes_and_settings_apart(tmp_path: Path) -> None:
    digests = {
        Checkpoint.open(save_tiny("olmoe", tmp_path / "plain")).digest,
        Checkpoint.open(save_tiny("olmoe", tmp_path / "type", torch.bfloat16)).digest,
        Checkpoint.open(save_tiny("olmoe", tmp_path / "shape", intermediate_size=16)).digest,
        Checkpoint.open(save_tiny("olmoe", tmp_path / "setting", norm_topk_prob=True)).digest,
    }

    assert len(digests) == 4


def test_experts_may_be_read_from_several_threads(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("gpt_oss", tmp_path))
    ids = [(layer, expert) for layer in checkpoint.moe_layers for expert in range(8)] * 4
    alone = [checkpoint.load_expert(*expert) for expert in ids]

    reopened = Checkpoint.open(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda expert: reopened.load_expert(*expert), ids))

    assert [expert.content_hash for expert in together] == [expert.content_hash for expert in alone]
    for ours, theirs in zip(together, alone, strict=True):
        assert all(
            torch.equal(ours.weights[name], weight) for name, weight in theirs.weights.items()
        )


def test_a_layer_or_an_expert_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("deepseek_v3", tmp_path / "tiny"))

    with pytest.raises(NotFound, match=r"layer 0 of tiny has no experts"):
        checkpoint.read_expert(0, 0)
    with pytest.raises(NotFound, match=r"layer 1 of tiny has no expert 8; it has 8"):
        checkpoint.content_hash(1, 8)
    with pytest.raises(NotFound, match=r"layer 3 of tiny"):
        empty_experts(checkpoint, 3, 1, torch.float32, CPU)


@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_both_implementations_of_experts_agree(family: str, tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny(family, tmp_path))
    hidden = torch.randn(9, 32, generator=torch.Generator().manual_seed(5))
    slots, ones = torch.arange(9)[:, None] % 3, torch.ones(9, 1)

    grouped = build_experts(checkpoint, 2, (6, 1, 3), torch.float32)
    eager = build_experts(checkpoint, 2, (6, 1, 3), torch.float32, "eager")

    config: Any = grouped.config
    assert config._experts_implementation == "grouped_mm"
    torch.testing.assert_close(
        grouped(hidden, slots, ones), eager(hidden, slots, ones), atol=1e-5, rtol=1e-5
    )


def test_a_module_is_allocated_once_and_filled_expert_by_expert(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("gpt_oss", tmp_path, torch.bfloat16))
    module = empty_experts(checkpoint, 1, 2, checkpoint.dtype, CPU)
    allocated = {name: weight.data_ptr() for name, weight in module.named_parameters()}

    for slot, expert in enumerate((7, 4)):
        fill_expert(module, slot, checkpoint.read_expert(1, expert))

    assert {name: weight.data_ptr() for name, weight in module.named_parameters()} == allocated
    assert sum(weight.nbytes for weight in module.parameters()) == 2 * checkpoint.expert_bytes(1)
    for name, weight in build_experts(checkpoint, 1, (7, 4), checkpoint.dtype).named_parameters():
        assert torch.equal(module.get_parameter(name), weight)


def test_the_context_ends_at_the_last_position(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path))

    assert (checkpoint.max_context, checkpoint.context_note) == (MAX_CONTEXT, None)


def test_longrope_is_served_up_to_its_original_length(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("phimoe_longrope", tmp_path))

    assert checkpoint.max_context == 64
    assert checkpoint.context_note is not None
    assert "64 tokens" in checkpoint.context_note
    assert "longrope" in checkpoint.context_note


def test_dynamic_rope_is_served_up_to_its_original_length(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path, rope_parameters=rope))

    assert checkpoint.max_context == MAX_CONTEXT
    assert checkpoint.context_note is not None
    assert "dynamic" in checkpoint.context_note


def test_the_tokenizer_of_a_tiny_checkpoint_spells_any_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(save_tiny("olmoe", tmp_path) / "tokenizer.json"))
    text = "Grüße, 世界 🌍\x00\x7f" + "".join(map(chr, range(0x80, 0x180)))

    assert tokenizer.get_vocab_size() == VOCAB_SIZE
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_the_type_is_that_of_the_weights_where_the_configuration_names_none(tmp_path: Path) -> None:
    save_tiny("olmoe", tmp_path, torch.float16)
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps(
            {key: value for key, value in json.loads(config.read_text()).items() if key != "dtype"}
        )
    )

    assert Checkpoint.open(tmp_path).dtype is torch.float16
