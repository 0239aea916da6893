"""The trunk with its experts elsewhere computes what transformers computes with the whole model."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, OlmoeForCausalLM, PreTrainedModel

from services.model.checkpoint import Checkpoint
from services.model.refusals import UnusableModel
from services.model.tensor_files import TensorFiles
from services.model.trunk import build_trunk
from tests.checkpoints import SERVED_FAMILIES, VOCAB_SIZE, save_tiny
from tests.local_experts import LocalExperts

CPU = torch.device("cpu")
DTYPES = (torch.float32, torch.bfloat16)


class NoExperts(nn.Module):
    """Experts whose outputs are zero."""

    def forward(
        self, hidden: torch.Tensor, experts: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        return torch.zeros_like(hidden)


def split_model(directory: Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    checkpoint = Checkpoint.open(directory)
    dtype = dtype or checkpoint.dtype
    return build_trunk(
        checkpoint, dtype, CPU, lambda layer, _: LocalExperts(checkpoint, layer, dtype)
    )


def trunk_alone(
    directory: Path, progress: Callable[[int, int], None] | None = None
) -> PreTrainedModel:
    checkpoint = Checkpoint.open(directory)
    return build_trunk(checkpoint, checkpoint.dtype, CPU, lambda layer, _: NoExperts(), progress)


def whole_model(directory: Path, dtype: torch.dtype | str = "auto") -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()
    model.set_experts_implementation("grouped_mm")
    # Weights that lie in the mapped file as they come are not aligned, and a product's last bit
    # depends on that.
    return copy.deepcopy(model)


def tokens() -> torch.Tensor:
    return torch.randint(0, VOCAB_SIZE, (2, 40), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def logits(model: PreTrainedModel) -> torch.Tensor:
    return model(tokens(), use_cache=False).logits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_trunk_and_split_experts_compute_what_the_whole_model_computes(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    save_tiny(family, tmp_path, dtype)

    assert torch.equal(logits(split_model(tmp_path)), logits(whole_model(tmp_path)))


@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_without_its_experts_a_model_computes_something_else(family: str, tmp_path: Path) -> None:
    save_tiny(family, tmp_path)

    assert (logits(trunk_alone(tmp_path)) - logits(whole_model(tmp_path))).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_every_weight_of_the_trunk_has_the_type_and_value_that_from_pretrained_gives_it(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    save_tiny(family, tmp_path)
    checkpoint = Checkpoint.open(tmp_path)

    trunk = build_trunk(checkpoint, dtype, CPU, lambda layer, _: NoExperts())

    whole = whole_model(tmp_path, dtype)
    expected = dict((*whole.named_parameters(), *whole.named_buffers()))
    found = dict((*trunk.named_parameters(), *trunk.named_buffers()))
    assert set(found) == {name for name in expected if ".experts." not in name}
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("family", SERVED_FAMILIES)
def test_building_a_trunk_neither_allocates_nor_reads_an_expert(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny(family, tmp_path)
    read: list[str] = []
    read_tensor = TensorFiles.read

    def recording(files: TensorFiles, name: str, part: int | None = None) -> torch.Tensor:
        read.append(name)
        return read_tensor(files, name, part)

    monkeypatch.setattr(TensorFiles, "read", recording)
    trunk = trunk_alone(tmp_path)

    assert not [name for name in read if ".experts." in name or "_linear" in name]
    whole = dict(whole_model(tmp_path).named_parameters())
    outside_experts = sum(
        weight.nbytes for name, weight in whole.items() if ".experts." not in name
    )
    assert sum(weight.nbytes for weight in trunk.parameters()) == outside_experts


def test_tied_weights_are_one_tensor(tmp_path: Path) -> None:
    trunk = trunk_alone(save_tiny("olmoe", tmp_path, tie_word_embeddings=True))

    assert trunk.lm_head.weight is trunk.model.embed_tokens.weight


def test_a_trunk_is_ready_for_inference_only(tmp_path: Path) -> None:
    trunk = trunk_alone(save_tiny("olmoe", tmp_path))

    assert not trunk.training
    assert not any(weight.requires_grad for weight in trunk.parameters())


def test_the_weights_of_a_trunk_outlive_its_files(tmp_path: Path) -> None:
    save_tiny("olmoe", tmp_path)
    trunk = trunk_alone(tmp_path)
    before = logits(trunk)
    weights = tmp_path / "model.safetensors"
    with weights.open("r+b") as file:  # in place: a view of the mapped file would see the zeros
        file.write(bytes(weights.stat().st_size))

    assert torch.equal(logits(trunk), before)


def test_a_buffer_that_is_neither_stored_nor_computed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tiny("olmoe", tmp_path)
    monkeypatch.setattr(OlmoeForCausalLM, "_init_weights", lambda model, module: None)

    with pytest.raises(
        UnusableModel, match=r"inv_freq of olmoe is not in the checkpoint and was not computed"
    ):
        trunk_alone(tmp_path)


def test_experts_left_on_the_meta_device_are_noticed(tmp_path: Path) -> None:
    checkpoint = Checkpoint.open(save_tiny("olmoe", tmp_path))

    with pytest.raises(
        UnusableModel, match=r"layers\.0\.mlp\.experts\.gate_up_proj was not loaded"
    ):
        build_trunk(checkpoint, torch.float32, CPU, lambda layer, module: module)


def test_progress_counts_every_tensor_of_the_trunk(tmp_path: Path) -> None:
    save_tiny("mixtral", tmp_path)
    seen: list[tuple[int, int]] = []

    trunk_alone(tmp_path, progress=lambda done, total: seen.append((done, total)))

    total = len(Checkpoint.open(tmp_path).layout.trunk)
    assert seen == [(done, total) for done in range(1, total + 1)]


def test_layers_that_predict_several_tokens_are_left_out(tmp_path: Path) -> None:
    save_tiny("glm4_moe", tmp_path, num_hidden_layers=4)
    config = tmp_path / "config.json"
    config.write_text(
        config.read_text().replace('"num_hidden_layers": 4', '"num_hidden_layers": 3')
    )

    assert Checkpoint.open(tmp_path).moe_layers == (1, 2)
    assert torch.equal(logits(split_model(tmp_path)), logits(whole_model(tmp_path)))


def test_a_checkpoint_may_be_computed_in_another_type_than_its_own(tmp_path: Path) -> None:
    save_tiny("deepseek_v3", tmp_path, torch.bfloat16)

    found = logits(split_model(tmp_path, torch.float32))

    assert torch.equal(found, logits(whole_model(tmp_path, torch.float32)))
