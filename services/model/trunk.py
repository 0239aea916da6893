"""The trunk: everything of a model but its experts, as transformers' own module with the experts
replaced.
"""

import re
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from services.model.checkpoint import Checkpoint
from services.model.digest import ContentHash
from services.model.refusals import UnusableModel
from services.model.skeleton import build_skeleton, experts_modules
from services.model.transformers_internals import initialise, patterns_in_float32

MakeExperts = Callable[[int, nn.Module], nn.Module]
OnProgress = Callable[[int, int], None]


@torch.no_grad()
def build_trunk(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    make_experts: MakeExperts,
    progress: OnProgress | None = None,
    content: ContentHash | None = None,
) -> PreTrainedModel:
    """The checkpoint's causal language model on `device`, with each block's experts replaced; in
    evaluation mode.

    `make_experts(layer, module)` gets the family's own module on the meta device and returns what
    is called in its place: `(hidden [tokens, hidden_size], experts [tokens, k], weights [tokens,
    k]) -> [tokens, hidden_size]`. No expert is allocated or read. `progress` is told after each
    tensor how many are loaded and how many there are; what is read is added to `content`. Raises
    UnusableModel when a tensor cannot be read.
    """
    model = build_skeleton(checkpoint.config, dtype)
    for experts in experts_modules(model):
        model.set_submodule(experts.path, make_experts(experts.layer, experts.module))
    _fill_computed_buffers(model, device)
    _load(model, checkpoint, dtype, device, progress, content)
    missing = {name for name, tensor in model.state_dict(keep_vars=True).items() if tensor.is_meta}
    model.tie_weights(missing_keys=missing, recompute_mapping=False)
    _check_complete(model)
    model.requires_grad_(False)
    model.train(False)
    return model


def _load(
    model: PreTrainedModel,
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: torch.device,
    progress: OnProgress | None,
    content: ContentHash | None,
) -> None:
    is_kept_in_float32 = _kept_in_float32(model, dtype)
    trunk = checkpoint.layout.trunk
    for number, (name, weight) in enumerate(
        sorted(trunk.items()), start=1
    ):  # in one order however it is stored
        wanted = torch.float32 if is_kept_in_float32(name) else _tensor(model, name).dtype
        stored = weight.read(checkpoint.files)
        _place(model, name, weight.decode(stored, wanted).to(device))
        if content is not None:
            content.add(name, [stored])
        if progress is not None:
            progress(number, len(trunk))


def _kept_in_float32(model: PreTrainedModel, dtype: torch.dtype) -> Callable[[str], bool]:
    """Which weights the family keeps in float32 when the rest is in `dtype`, as `from_pretrained`
    decides it.
    """
    patterns = [pattern.replace("*", ".*") for pattern in patterns_in_float32(model, dtype)]
    if not patterns:
        return lambda name: False
    kept = re.compile("|".join(patterns))
    return lambda name: kept.search(name) is not None


def _fill_computed_buffers(model: PreTrainedModel, device: torch.device) -> None:
    """Allocate the buffers in no checkpoint, such as rotary frequencies, and compute them as
    from_pretrained does.
    """
    buffers = [
        (name, buffer) for name, buffer in model.named_non_persistent_buffers() if buffer.is_meta
    ]
    for name, buffer in buffers:
        _place(model, name, torch.full_like(buffer, _unset(buffer.dtype), device=device))
    owners = {name.rpartition(".")[0] for name, _ in buffers}
    for owner in sorted(owners):
        initialise(model, model.get_submodule(owner))
    for name, buffer in buffers:
        value = _tensor(model, name)
        unset = value.isnan() if value.is_floating_point() else value == _unset(buffer.dtype)
        if unset.any():
            raise UnusableModel(
                f"{name} of {model.config.model_type} is not in the checkpoint and was not computed"
            )


def _unset(dtype: torch.dtype) -> float | int:
    return float("nan") if dtype.is_floating_point else torch.iinfo(dtype).min


def _tensor(model: nn.Module, name: str) -> torch.Tensor:
    owner, _, attribute = name.rpartition(".")
    tensor: torch.Tensor = getattr(model.get_submodule(owner), attribute)
    return tensor


def _place(model: nn.Module, name: str, value: torch.Tensor) -> None:
    path, _, attribute = name.rpartition(".")
    owner = model.get_submodule(path)
    is_buffer = not isinstance(getattr(owner, attribute), nn.Parameter)
    setattr(owner, attribute, value if is_buffer else nn.Parameter(value, requires_grad=False))


def _check_complete(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise UnusableModel(f"{name} was not loaded")
