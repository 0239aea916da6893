"""A checkpoint split at its experts: which stored weights are whose."""

from collections.abc import Iterable
from dataclasses import dataclass

from transformers import PreTrainedModel

from services.model.encodings import StoredWeight
from services.model.expert_sources import ExpertParameter, ExpertSources, check_shape
from services.model.refusals import UnusableModel
from services.model.skeleton import Renames, experts_modules
from services.model.unplaced import warn_of_unplaced


@dataclass(frozen=True)
class Layout:
    """Every stored weight that the model uses."""

    experts: dict[
        int, dict[str, ExpertParameter]
    ]  # by layer, then by the parameter's name in the `*Experts` module
    trunk: dict[str, StoredWeight]  # by the name in the model's state dict


def split(model: PreTrainedModel, weights: Iterable[StoredWeight]) -> Layout:
    """Sort `weights` into experts and trunk of `model`, a skeleton; what has no place is left out,
    with a warning.

    Raises UnusableModel naming the layer, expert or tensor that is missing, superfluous, of the
    wrong shape or not read.
    """
    renames = Renames(model)
    state = model.state_dict()
    sources = {module.path: ExpertSources(module) for module in experts_modules(model)}
    trunk: dict[str, StoredWeight] = {}
    unplaced = []
    for weight in weights:
        destination = renames.destination(weight.name)
        owner = sources.get(destination.name.rpartition(".")[0])
        if destination.name not in state:
            unplaced.append(weight.name)
        elif weight.refusal:
            raise UnusableModel(weight.refusal)
        elif owner is not None:
            owner.take(weight, destination)
        elif destination.converter is None:
            check_shape(weight, tuple(state[destination.name].shape))
            trunk[destination.name] = weight
        else:
            raise UnusableModel(f"{weight.name} is stored in a layout that is not read")
    warn_of_unplaced(model, unplaced)
    experts = {owner.layer: owner.parameters() for owner in sources.values()}
    _check_complete(model, set(trunk), set(sources))
    return Layout(experts, trunk)


def _check_complete(model: PreTrainedModel, given: set[str], experts_paths: set[str]) -> None:
    for target, source in model.all_tied_weights_keys.items():
        if target in given or source in given:
            given |= {target, source}
    expected = (name for name in model.state_dict() if name.rpartition(".")[0] not in experts_paths)
    missing = [name for name in expected if name not in given]
    if missing:
        others = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise UnusableModel(f"the checkpoint lacks {missing[0]}{others}")
