"""The model that comes with the package: what a service serves when it is told nothing else."""

from importlib import resources
from pathlib import Path

# Located as a file: importing the model's package would bring torch before its threads are set.
EMBEDDED_MODEL = Path(str(resources.files("services"))) / "model" / "tessera"
