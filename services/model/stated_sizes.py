"""The sizes that config.json states, compared with the tensors that there are: before modules are
built for them, and naming both.
"""

import re
from collections.abc import Iterable

from transformers import PreTrainedConfig

from services.model.refusals import UnusableModel
from services.model.tensor_files import TensorInfo

# Where a tensor's name counts, and what families call that number. Python makes no number of
# thousands of digits.
COUNTED: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"\.layers\.(\d{1,9})\."), ("num_hidden_layers",)),
    (
        re.compile(r"\.experts\.(\d{1,9})\."),
        ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    ),
)
EMBEDDINGS = ("model.embed_tokens.weight", "embed_tokens.weight")
EMBEDDING_SHAPE = ("vocab_size", "hidden_size")


def refuse_sizes(config: PreTrainedConfig, infos: Iterable[TensorInfo]) -> None:
    """Raise UnusableModel where the configuration has more layers or experts than the files, or
    where the embedding is of another shape. What else does not fit, the built modules show.
    """
    named = {info.name: info for info in infos}
    for pattern, fields in COUNTED:
        _refuse_count(config, named, pattern, fields)
    for name in named.keys() & set(EMBEDDINGS):
        _refuse_shape(config, named[name])


def _refuse_count(
    config: PreTrainedConfig,
    named: Iterable[str],
    pattern: re.Pattern[str],
    fields: tuple[str, ...],
) -> None:
    numbers = {name: int(found[1]) for name in named if (found := pattern.search(name))}
    stated = {field: getattr(config, field, None) for field in fields}
    counts = {field: count for field, count in stated.items() if isinstance(count, int)}
    if not numbers or not counts:
        return  # stored in another way, or said in another place
    field, count = next(iter(counts.items()))
    last = max(numbers, key=lambda name: numbers[name])
    if count > numbers[last] + 1:
        raise UnusableModel(
            f"config.json: {field} is {count}, and the last of the tensors is {last}"
        )


def _refuse_shape(config: PreTrainedConfig, info: TensorInfo) -> None:
    expected = [getattr(config, field, None) for field in EMBEDDING_SHAPE]
    if len(info.shape) != len(expected):
        return
    for field, wanted, size in zip(EMBEDDING_SHAPE, expected, info.shape, strict=True):
        if isinstance(wanted, int) and wanted != size:
            raise UnusableModel(
                f"{info.name} has shape {list(info.shape)}, where the model needs {expected}: "
                f"config.json has {field} of {wanted}"
            )
