"""Writes a checkpoint as a model folder in Hugging Face layout: python -m train.export CHECKPOINT
FOLDER.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from transformers import Qwen3MoeForCausalLM

from train.recipe import ModelShape
from train.tokenizer import wrap_tokenizer

NOTICE = Path(__file__).parent / "NOTICE"
# What servers do where a request does not say: at temperature 1 so small a model loses its thread.
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=Path("build/train"))
    arguments = parser.parse_args()
    export(arguments.checkpoint, arguments.work / "tokenizer.json", arguments.folder)


def export(checkpoint: Path, tokenizer_file: Path, folder: Path) -> None:
    """Weights in bf16, the tokenizer with its chat template, the configurations and the notices."""
    shape = ModelShape()
    model = Qwen3MoeForCausalLM(shape.config())
    masters = torch.load(checkpoint, weights_only=False)["masters"]
    with torch.no_grad():
        for parameter, master in zip(model.parameters(), masters, strict=True):
            parameter.copy_(master)
    model.generation_config.update(**SAMPLING)
    model.to(torch.bfloat16).save_pretrained(folder)  # type: ignore[arg-type]
    wrapped = wrap_tokenizer(tokenizer_file)
    wrapped.model_max_length = shape.context
    wrapped.save_pretrained(folder)
    _name_experts_both_ways(folder / "config.json", shape)
    shutil.copyfile(NOTICE, folder / "NOTICE")
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes files only their owner may read


def _name_experts_both_ways(path: Path, shape: ModelShape) -> None:
    """transformers 5 writes only `num_local_experts`; other readers look for `num_experts`."""
    config = json.loads(path.read_text())
    config["num_experts"] = config["num_local_experts"] = shape.experts
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
