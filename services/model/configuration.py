"""What a checkpoint's config.json says, as it stands there and as transformers understands it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig

from services.metadata.fields import Fields
from services.model.encodings import check_quantisation
from services.model.refusals import UnusableModel, in_one_line, refuse_configuration
from services.model.tensor_files import TensorFiles
from services.wire.ranges import Range

LAYERS = Range(1, 1_000)
COMPUTE_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}

# Fields by which a configuration chooses code, its own or from a hub, which is for us to choose.
CHOOSING_CODE = frozenset(
    {
        "auto_map",
        "custom_pipelines",
        *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
        *("experts_implementation", "_experts_implementation", "_experts_implementation_internal"),
    }
)


@dataclass(frozen=True)
class Configuration:
    """A checkpoint's configuration: as it stands in the file, and as transformers
    understands it.
    """

    fields: dict[str, Any]
    weights_file: str | None  # that it names in place of the usual ones
    config: PreTrainedConfig  # of the model once its weights are decoded: it knows no quantisation

    @property
    def quantisation(self) -> dict[str, Any] | None:
        """How the weights are quantised on disk; None when they are not."""
        return self.fields.get("quantization_config")

    @classmethod
    def read(cls, directory: Path) -> "Configuration":
        """Read config.json and refuse what it alone rules out.

        Raises UnusableModel naming the file or the setting at fault.
        """
        if not directory.is_dir():
            raise UnusableModel(f"{directory} is no directory")
        fields = Fields.read(directory / "config.json")
        fields.whole("num_hidden_layers", LAYERS)  # or to build them would not end
        check_quantisation(fields.values.get("quantization_config"))
        config = _understood(fields)
        refuse_configuration(config)
        return cls(dict(fields.values), fields.text("transformers_weights"), config)

    def dtype(self, files: TensorFiles) -> torch.dtype:
        """The type to compute in unless told otherwise: the configuration's, else that of the first
        such weight.
        """
        named = getattr(self.config, "dtype", None)
        if isinstance(named, torch.dtype) and named in COMPUTE_DTYPES.values():
            return named
        stored = (
            COMPUTE_DTYPES[info.dtype] for info in files.infos if info.dtype in COMPUTE_DTYPES
        )
        return next(stored, torch.float32)


def _understood(fields: Fields) -> PreTrainedConfig:
    kind = fields.values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise UnusableModel(
            f"{fields.source} is of model type {str(kind)[:100]}, which transformers does not know"
        )
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[kind].from_dict(_harmless(fields.values))
    # the boundary: transformers raises whatever its code meets in values it does not expect
    except Exception as error:
        raise UnusableModel(
            f"{fields.source} ({kind}) is not understood: {in_one_line(error)}"
        ) from error
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _harmless(value: Any) -> Any:
    """The value without fields that choose code, in configurations of parts too; numbers that JSON
    does not have are as transformers writes them.
    """
    if isinstance(value, Mapping):
        if value.keys() == {"__float__"}:
            return float(value["__float__"])
        return {
            name: _harmless(inner) for name, inner in value.items() if name not in CHOOSING_CODE
        }
    return [_harmless(one) for one in value] if isinstance(value, list) else value
