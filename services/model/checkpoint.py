"""A checkpoint of a Mixture-of-Experts model, opened without reading its weights and read expert by
expert.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from services.metadata.names import model_name
from services.model.configuration import Configuration
from services.model.context_limit import context_limit
from services.model.digest import checkpoint_digest
from services.model.encodings import StoredWeight, stored_weights
from services.model.expert_reading import hash_expert, read_expert_into
from services.model.expert_sources import ExpertParameter
from services.model.hash_cache import HashCache
from services.model.layout import Layout, split
from services.model.placed_expert import PlacedExpert, places_of
from services.model.refusals import UnusableModel, missing_experts, refuse_experts, refuse_structure
from services.model.skeleton import ExpertsModule, build_skeleton, experts_modules
from services.model.stated_sizes import refuse_sizes
from services.model.tensor_files import TensorFiles
from services.wire.errors import NotFound

ExpertWeights = dict[str, torch.Tensor]
"""One expert's parameters under their names in the family's `*Experts` module, which stacks them
for all experts.
"""

Stored = dict[str, list[tuple[StoredWeight, tuple[torch.Tensor, ...]]]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class LoadedExpert:
    """One expert's weights and the hash of the very bytes that they were made of."""

    weights: ExpertWeights
    content_hash: bytes


class Checkpoint:
    """A checkpoint directory in Hugging Face layout: safetensors, single or in shards, with
    config.json.

    Opening it reads headers and samples. Reading an expert reads no other expert's bytes. Files
    that were written to after that are not read any more, unless they are what they were. Safe to
    use from several threads.
    """

    def __init__(
        self,
        directory: Path,
        configuration: Configuration,
        files: TensorFiles,
        model: PreTrainedModel,
    ) -> None:
        """For `open`, which see; `model` is a skeleton of the configuration."""
        modules = experts_modules(model)
        config = configuration.config
        limit = context_limit(config)
        self._files = files
        self._layout = _split(model, modules, stored_weights(files, configuration.quantisation))
        self._modules = {entry.layer: entry.module for entry in modules}
        self._fields = configuration.fields
        self.directory = directory
        self.name: str = model_name(directory)
        self.config: PreTrainedConfig = config
        self.model_type: str = config.model_type
        self.digest: str = checkpoint_digest(self._fields, files)
        self.num_layers: int = config.num_hidden_layers
        self.moe_layers: tuple[int, ...] = tuple(self._modules)
        self.num_experts: int = _num_experts(modules)
        self.num_experts_per_token: int = _num_experts_per_token(model, modules[0])
        self.hidden_size: int = config.hidden_size
        self.vocab_size: int = config.vocab_size
        self.dtype: torch.dtype = configuration.dtype(files)
        self.max_context: int = limit.tokens
        self.context_note: str | None = limit.note

    @classmethod
    def open(cls, directory: Path) -> "Checkpoint":
        """Open the checkpoint in `directory` and check that it is complete and can be served.

        Raises UnusableModel, whose message names the file, the tensor, the layer or the setting at
        fault.
        """
        configuration = Configuration.read(directory)
        files = TensorFiles.open(directory, configuration.weights_file)
        refuse_sizes(configuration.config, files.infos)
        model = build_skeleton(configuration.config, configuration.dtype(files))
        refuse_structure(model)
        return cls(directory, configuration, files, model)

    @property
    def files(self) -> TensorFiles:
        """The tensors of the checkpoint."""
        return self._files

    @property
    def layout(self) -> Layout:
        """Which stored weights are whose."""
        return self._layout

    def experts_module(self, layer: int) -> nn.Module:
        """The family's `*Experts` module of `layer`, on the meta device; copy it before you change
        it.

        Raises NotFound for a layer without experts.
        """
        if layer not in self._modules:
            raise NotFound(f"layer {layer} of {self.name} has no experts")
        return self._modules[layer]

    def expert_bytes(self, layer: int, dtype: torch.dtype | None = None) -> int:
        """Bytes that one expert of `layer` takes in memory, in `dtype` or the checkpoint's own;
        nothing is read.
        """
        values = sum(
            torch.Size(source.shape).numel() for source in self._sources(layer, 0).values()
        )
        return values * (dtype or self.dtype).itemsize

    def read_expert(
        self, layer: int, expert: int, dtype: torch.dtype | None = None
    ) -> ExpertWeights:
        """One expert's weights in `dtype` or the checkpoint's own, in the layout of the family's
        `*Experts` module.

        Raises NotFound for a layer or an expert that the model does not have.
        """
        return _weights(self._stored(layer, expert), dtype or self.dtype)

    def content_hash(self, layer: int, expert: int, hashes: HashCache | None = None) -> bytes:
        """BLAKE2b-128 of the expert as it stands in the files, whatever their layout; nothing is
        read where `hashes` knows it.

        Raises NotFound for a layer or an expert that the model does not have, and UnusableModel
        when the files cannot be read, or have changed.
        """
        sources = self._sources(layer, expert)
        return self._reading(lambda: hash_expert(expert, sources, self._files, hashes))

    def placed(self, layer: int, expert: int, dtype: torch.dtype) -> PlacedExpert | None:
        """Where an expert stands in the files, if it stands there as it is computed with in
        `dtype`. Raises NotFound as `content_hash` does.
        """
        sources, files = self._sources(layer, expert), self._files
        places = places_of(expert, sources, files, dtype)
        if places is None:
            return None
        return PlacedExpert(places, partial(hash_expert, expert, sources, files))

    def load_expert(
        self, layer: int, expert: int, dtype: torch.dtype | None = None
    ) -> LoadedExpert:
        """Weights and content hash, of bytes that are read once."""
        shapes = {name: source.shape for name, source in self._sources(layer, expert).items()}
        weights = {
            name: torch.empty(shape, dtype=dtype or self.dtype) for name, shape in shapes.items()
        }
        return LoadedExpert(weights, self.load_into(weights, layer, expert))

    def load_into(
        self,
        parameters: Mapping[str, torch.Tensor],
        layer: int,
        expert: int,
        hashes: HashCache | None = None,
    ) -> bytes:
        """Read an expert into tensors of its parameters' shapes; the content hash of the very bytes
        that were read, which `hashes` may know already: see `read_expert_into`.
        """
        sources = self._sources(layer, expert)
        return self._reading(
            lambda: read_expert_into(parameters, expert, sources, self._files, hashes)
        )

    def refresh(self) -> None:
        """Take up files that were replaced, or written to, since they were opened; the digest is
        theirs from then on.

        Raises UnusableModel when they cannot be used, or are of another model.
        """
        files = self._files.reopen_changed()
        if files is not None:
            self._files, self.digest = files, checkpoint_digest(self._fields, files)

    def _reading(self, read: Callable[[], Result]) -> Result:
        """What it gives, of files that were put back if they have to be opened again for that."""
        try:
            return read()
        except UnusableModel:
            if not self._are_put_back():
                raise
            return read()

    def _are_put_back(self) -> bool:
        """Whether files that were written to are of the same digest even so; they are
        read on then.
        """
        try:
            files = self._files.reopen_changed()
            if files is None or checkpoint_digest(self._fields, files) != self.digest:
                return False
        except UnusableModel:
            return False
        self._files = files
        return True

    def _stored(self, layer: int, expert: int) -> Stored:
        """The encoded parts that each parameter of an expert is stacked from, read into memory."""
        return {
            name: [
                (weight, weight.read(self._files, index)) for weight, index in source.locate(expert)
            ]
            for name, source in self._sources(layer, expert).items()
        }

    def _sources(self, layer: int, expert: int) -> dict[str, ExpertParameter]:
        self.experts_module(layer)
        if not 0 <= expert < self.num_experts:
            raise NotFound(
                f"layer {layer} of {self.name} has no expert {expert}; it has {self.num_experts}"
            )
        return self._layout.experts[layer]


def _weights(stored: Stored, dtype: torch.dtype) -> ExpertWeights:
    decoded = {
        name: [weight.decode(tensors, dtype) for weight, tensors in parts]
        for name, parts in stored.items()
    }
    return {
        name: values[0] if len(values) == 1 else torch.cat(values)
        for name, values in decoded.items()
    }


def _split(
    model: PreTrainedModel, modules: list[ExpertsModule], weights: list[StoredWeight]
) -> Layout:
    if not modules:
        raise missing_experts(model)
    for entry in modules:
        refuse_experts(entry.layer, entry.module, entry.num_experts)
    return split(model, weights)


def _num_experts(modules: list[ExpertsModule]) -> int:
    counts = {entry.num_experts for entry in modules}
    if len(counts) > 1:
        raise UnusableModel(f"layers have different numbers of experts: {sorted(counts)}")
    return counts.pop()


def _num_experts_per_token(model: PreTrainedModel, experts: ExpertsModule) -> int:
    """What the gate beside the experts says; the configuration names this number differently in
    each family.
    """
    block = model.get_submodule(experts.path.rpartition(".")[0])
    for gate in (*block.children(), model.config):
        chosen = getattr(gate, "top_k", None) or getattr(gate, "num_experts_per_tok", None)
        if isinstance(chosen, int):
            if not 1 <= chosen <= experts.num_experts:
                raise UnusableModel(
                    f"config.json sends a token to {chosen} experts; a layer has "
                    f"{experts.num_experts}"
                )
            return chosen
    raise UnusableModel(
        f"{model.config.model_type} does not say how many experts a token is sent to"
    )
