"""An expert whose weights stand in the files as they are computed with: each parameter in
neighbouring bytes, in the type that is wanted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch

from services.model.encodings import Encoding, StoredWeight
from services.model.expert_sources import ExpertParameter
from services.model.hash_cache import HashCache
from services.model.tensor_file import DTYPES, FilePlace, TensorFile
from services.model.tensor_files import TensorFiles


@dataclass(frozen=True)
class PlacedExpert:
    """Where each parameter stands, by name; `content_hash` is that of what stands there."""

    places: Mapping[str, FilePlace]
    content_hash: Callable[[HashCache | None], bytes]

    @property
    def files(self) -> set[TensorFile]:
        """Those that it stands in."""
        return {place.file for place in self.places.values()}

    @property
    def num_bytes(self) -> int:
        """Of all its parameters."""
        return sum(place.end - place.begin for place in self.places.values())


def places_of(
    expert: int, sources: Mapping[str, ExpertParameter], files: TensorFiles, dtype: torch.dtype
) -> dict[str, FilePlace] | None:
    """Where an expert's parameters stand; None unless all of them stand as they are computed
    with.
    """
    found = {}
    for name, source in sources.items():
        place = _place(source.locate(expert), files, dtype)
        if place is None:
            return None
        found[name] = place
    return found


def _place(
    located: list[tuple[StoredWeight, int | None]], files: TensorFiles, dtype: torch.dtype
) -> FilePlace | None:
    for weight, _ in located:
        tensor = weight.tensors[0]
        if weight.encoding is not Encoding.PLAIN or DTYPES[files.info(tensor).dtype] is not dtype:
            return None
    parts = [files.place(weight.tensors[0], index) for weight, index in located]
    first, last = parts[0], parts[-1]
    are_neighbours = all(
        before.file is after.file and before.end == after.begin for before, after in pairwise(parts)
    )
    if not are_neighbours or first.begin % dtype.itemsize:
        return None
    return FilePlace(first.file, first.begin, last.end)
