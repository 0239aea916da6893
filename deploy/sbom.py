#!/usr/bin/env python3
"""Prints what the Python that runs this has installed, and the system's packages, as a software
bill of materials in CycloneDX's JSON.

`deploy/build-image` runs it in the image that it built, by `python - < deploy/sbom.py`; its
arguments name the image and what it was built on.
"""

import json
import platform
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

DPKG = Path("/var/lib/dpkg/status")


def main() -> int:
    """Print it; the exit code."""
    image, *bases = sys.argv[1:] or ["moesaic"]
    properties = [{"name": "moesaic:base", "value": base} for base in bases]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
            "component": {"type": "container", "name": image, "properties": properties},
        },
        "components": [*_python(), *_packages(), *_system()],
    }
    json.dump(document, sys.stdout, indent=1)
    print()
    return 0


def _python() -> Iterator[dict[str, Any]]:
    yield {
        "type": "platform",
        "name": platform.python_implementation(),
        "version": platform.python_version(),
    }


def _packages() -> list[dict[str, Any]]:
    found = {one.metadata["Name"].lower(): one for one in distributions()}
    return [_package(found[name]) for name in sorted(found)]


def _package(one: Distribution) -> dict[str, Any]:
    name, version = one.metadata["Name"], one.version
    component: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{name.lower().replace('_', '-')}@{version.replace('+', '%2B')}",
    }
    licence = one.metadata["License-Expression"]
    if licence:
        component["licenses"] = [{"expression": licence}]
    return component


def _system() -> Iterator[dict[str, Any]]:
    """Debian's packages, where its list of them is there."""
    if not DPKG.exists():
        return
    for paragraph in DPKG.read_text(encoding="utf-8").split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if line[:1].isalpha() and ": " in line
        )
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = f"pkg:deb/debian/{name}@{version}?arch={fields['Architecture']}"
            yield {"type": "library", "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    sys.exit(main())
