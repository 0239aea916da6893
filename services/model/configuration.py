"""What a checkpoint's JSON files say: the model's configuration and how its author would have it generate."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

from services.model.encodings import check_quantisation
from services.model.refusals import UnusableModel, in_one_line, refuse_configuration
from services.model.skeleton import SENSELESS
from services.model.tensor_files import TensorFiles

COMPUTE_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@dataclass(frozen=True)
class GenerationDefaults:
    """How the checkpoint's author samples; None where generation_config.json says nothing or does not sample."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class Configuration:
    """A checkpoint's configuration: as it stands in the file, and as transformers understands it."""

    fields: dict[str, Any]
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
        fields = _read_json(directory / "config.json")
        if fields is None:
            raise UnusableModel(f"{directory / 'config.json'} is missing")
        check_quantisation(fields.get("quantization_config"))
        config = _understood(directory, fields)
        refuse_configuration(config)
        return cls(fields, config)

    def dtype(self, files: TensorFiles) -> torch.dtype:
        """The type to compute in unless told otherwise: the configuration's, else that of the first such weight."""
        named = getattr(self.config, "dtype", None)
        if isinstance(named, torch.dtype) and named in COMPUTE_DTYPES.values():
            return named
        stored = (COMPUTE_DTYPES[info.dtype] for info in files.infos if info.dtype in COMPUTE_DTYPES)
        return next(stored, torch.float32)


@dataclass(frozen=True)
class Generation:
    """What generation_config.json says, with config.json in its stead where it says nothing."""

    defaults: GenerationDefaults
    eos_token_ids: tuple[int, ...]

    @classmethod
    def read(cls, directory: Path, config: PreTrainedConfig) -> "Generation":
        """Read generation_config.json if there is one. Raises UnusableModel when it is no JSON or senseless."""
        path = directory / "generation_config.json"
        fields = _read_json(path) or {}
        eos = fields.get("eos_token_id", getattr(config, "eos_token_id", None))
        try:
            return cls(_defaults(fields), _token_ids(eos))
        except (TypeError, ValueError) as error:
            raise UnusableModel(f"{path} has a value that makes no sense: {error}") from error


def _defaults(fields: dict[str, Any]) -> GenerationDefaults:
    if not fields.get("do_sample"):
        return GenerationDefaults()
    temperature, top_k, top_p = (fields.get(name) for name in ("temperature", "top_k", "top_p"))
    return GenerationDefaults(
        temperature=None if temperature is None else float(temperature),
        top_k=None if top_k is None else int(top_k),
        top_p=None if top_p is None else float(top_p),
    )


def _token_ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    return tuple(int(token) for token in ids)


def _understood(directory: Path, fields: dict[str, Any]) -> PreTrainedConfig:
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise UnusableModel(f"{directory / 'config.json'} is of model type {kind}, which transformers does not know")
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, StrictDataclassError, *SENSELESS) as error:
        raise UnusableModel(f"{directory / 'config.json'} ({kind}) is not understood: {in_one_line(error)}") from error
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in the file; None when there is no file."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UnusableModel(f"{path} is not readable JSON: {error}") from error
    if not isinstance(fields, dict):
        raise UnusableModel(f"{path} holds no object")
    return fields
