"""Writes what an image holds as a CycloneDX document, Debian's packages and Python's: `sbom.py IMAGE FILE`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

# Runs in the image, whose own Python knows what it can import.
_INVENTORY = """
import importlib.metadata, json, platform, subprocess
listed = subprocess.run(
    ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n"],
    check=True, capture_output=True, text=True,
)
print(json.dumps({
    "distribution": platform.freedesktop_os_release(),
    "packages": [line.split() for line in listed.stdout.splitlines()],
    "python": [
        [one.name, one.version, one.metadata.get("License-Expression") or ""]
        for one in importlib.metadata.distributions()
    ],
}))
"""
_SECONDS = 120


def main() -> int:
    """Write the document; 0 when it keeps to the schema of CycloneDX."""
    if len(sys.argv) != 3:
        sys.stderr.write("usage: sbom.py IMAGE FILE\n")
        return 2
    image, file = sys.argv[1], Path(sys.argv[2])
    try:
        digest = _docker("image", "inspect", "--format", "{{.Id}}", image).strip()
        inside = ("--network", "none", "--read-only", "--entrypoint", "python", image, "-c", _INVENTORY)
        inventory = json.loads(_docker("run", "--rm", *inside))
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"sbom: {image}: {error.stderr.strip()}\n")
        return 1
    text = JsonV1Dot6(bom_of(image, digest, inventory)).output_as_string(indent=2)
    if (wrong := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        sys.stderr.write(f"sbom: {wrong}\n")
        return 1
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return 0


def bom_of(image: str, digest: str, inventory: dict[str, Any]) -> Bom:
    """Make the document of an image out of what it says of itself."""
    distribution = inventory["distribution"]["ID"]
    release = f"{distribution}-{inventory['distribution'].get('VERSION_ID', '')}"
    bom = Bom()
    bom.metadata.component = Component(
        name=image, type=ComponentType.CONTAINER, version=digest, properties=[Property(name="base", value=release)]
    )
    found: list[Component] = []
    for name, version, architecture in inventory["packages"]:
        address = PackageURL("deb", distribution, name, version, {"arch": architecture, "distro": release})
        found.append(_component(name, version, address))
    for name, version, licence in inventory["python"]:
        found.append(_component(name, version, PackageURL("pypi", None, name, version), licence))
    bom.components.update(found)
    bom.register_dependency(bom.metadata.component, found)
    return bom


def _component(name: str, version: str, address: PackageURL, licence: str = "") -> Component:
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=address,
        bom_ref=str(address),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else [],
    )


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True, timeout=_SECONDS)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
