"""The stored weights that the experts of one layer are made of, in every layout that a checkpoint
may have.
"""

from dataclasses import dataclass

from services.model.encodings import StoredWeight
from services.model.refusals import UnusableModel
from services.model.skeleton import Destination, ExpertsModule
from services.model.transformers_internals import (
    Concatenate,
    MergeModulelist,
    WeightConverter,
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ExpertPart:
    """A stored weight for each expert of a layer, or one for all of them that is cut along its
    first dimension.
    """

    weights: tuple[StoredWeight, ...]
    is_fused: bool

    def locate(self, expert: int) -> tuple[StoredWeight, int | None]:
        """The weight of `expert`, and which slice of it where it holds them all."""
        return (self.weights[0], expert) if self.is_fused else (self.weights[expert], None)


@dataclass(frozen=True)
class ExpertParameter:
    """One parameter of a layer's `*Experts` module: its parts, stacked along an expert's first
    dimension.
    """

    shape: Shape  # of one expert
    parts: tuple[ExpertPart, ...]

    def locate(self, expert: int) -> list[tuple[StoredWeight, int | None]]:
        """What each part of `expert` is, as `ExpertPart.locate` says, in the order of stacking."""
        return [part.locate(expert) for part in self.parts]


class ExpertSources:
    """Collects the stored weights of one layer's experts, then says what each parameter
    is made of.
    """

    def __init__(self, experts: ExpertsModule) -> None:
        self.layer = experts.layer
        self._path = experts.path
        self._module = experts.module
        self._num_experts = experts.num_experts
        self._fused: dict[str, StoredWeight] = {}  # by parameter
        self._single: dict[str, dict[int, StoredWeight]] = {}  # by source pattern, then by expert
        self._converters: dict[str, WeightConverter] = {}  # by parameter

    def take(self, weight: StoredWeight, destination: Destination) -> None:
        """Note a weight whose destination is a parameter of this layer's experts."""
        parameter = destination.name.removeprefix(f"{self._path}.")
        if destination.converter is None or destination.pattern is None:
            self._fused[parameter] = weight
            return
        expert = _expert_number(weight.name)
        if expert >= self._num_experts:
            raise UnusableModel(
                f"{weight.name} is of an expert that the configuration does not have"
            )
        self._single.setdefault(destination.pattern, {})[expert] = weight
        self._converters[parameter] = destination.converter

    def parameters(self) -> dict[str, ExpertParameter]:
        """What each parameter of the module is made of.

        Raises UnusableModel naming the expert and the projection that is missing, or the weight of
        the wrong shape.
        """
        return {
            name: self._parameter(name, tuple(parameter.shape))
            for name, parameter in self._module.named_parameters()
        }

    def _parameter(self, name: str, shape: Shape) -> ExpertParameter:
        expert_shape = shape[1:]
        if name in self._fused:
            check_shape(self._fused[name], shape)
            return ExpertParameter(expert_shape, (ExpertPart((self._fused[name],), is_fused=True),))
        if name not in self._converters:
            raise UnusableModel(f"layer {self.layer} has no {name} for its experts")
        patterns = self._stacked_patterns(name)
        part_shape = (expert_shape[0] // len(patterns), *expert_shape[1:])
        return ExpertParameter(
            expert_shape, tuple(self._part(pattern, part_shape) for pattern in patterns)
        )

    def _part(self, pattern: str, shape: Shape) -> ExpertPart:
        weights = self._single.get(pattern, {})
        for expert in range(self._num_experts):
            if expert not in weights:
                projection = pattern.removesuffix(".weight").rpartition(".")[2]
                raise UnusableModel(f"expert {expert} of layer {self.layer} lacks its {projection}")
            check_shape(weights[expert], shape)
        return ExpertPart(tuple(weights[expert] for expert in sorted(weights)), is_fused=False)

    def _stacked_patterns(self, parameter: str) -> list[str]:
        converter = self._converters[parameter]
        match converter.operations:
            case [MergeModulelist(dim=0)] | [MergeModulelist(dim=0), Concatenate(dim=1)]:
                return list(converter.source_patterns)
            case operations:
                steps = ", ".join(type(operation).__name__ for operation in operations)
                raise UnusableModel(
                    f"layer {self.layer} stores {parameter} in a layout that is not read ({steps})"
                )


def check_shape(weight: StoredWeight, shape: Shape) -> None:
    """Raise UnusableModel unless the stored weight has the shape that the model needs."""
    if weight.shape != shape:
        raise UnusableModel(
            f"{weight.name} has shape {list(weight.shape)}, where the model needs {list(shape)}"
        )


def _expert_number(name: str) -> int:
    *_, last = (
        part for part in name.split(".") if part.isdecimal()
    )  # model.layers.3.mlp.experts.17.up_proj.weight
    return int(last)
