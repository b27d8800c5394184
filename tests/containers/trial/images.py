"""The images of a trial: the platform's own from compose/Dockerfile, and stand-ins for the servers' public ones."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.containers.tools import ROOT, TOOLS
from tests.containers.trial.engine import CommandFailed, Engine, run

HERE = Path(__file__).resolve().parent
SERVERS = ("postgres", "rabbitmq", "valkey", "haproxy")
_ARCHIVE = ROOT / ".taskplatform" / "trial" / "bookworm.tar"
_WHEELS = ROOT / "compose" / "wheels"
_BUILD_SECONDS = 600.0


def name_of(part: str) -> str:
    """Give the name of an image of the trial."""
    return f"taskplatform-trial/{part}:latest"


def build(engine: Engine, tell: Callable[[str], None]) -> None:
    """Build every image, with what the engine has of them. Raises CommandFailed."""
    base = os.environ.get("TASKPLATFORM_BASE") or _debian(engine)
    tell(f"Building all images on {base}")
    # The one waits for the disk and the network where the other has work for a processor.
    with ThreadPoolExecutor() as threads:
        for building in [threads.submit(_build_servers, engine, base), threads.submit(_build_platform, engine, base)]:
            building.result()


def bill_of_materials(engine: Engine) -> set[str]:
    """Give the package addresses in the SBOM of the platform's image. Raises CommandFailed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "sbom.json"
        python = str(Path(TOOLS) / "python")
        script = str(ROOT / "compose" / "sbom.py")
        run([python, script, name_of("taskplatform"), str(file)], engine.environment, seconds=120.0)
        listed = {one["purl"] for one in json.loads(file.read_text())["components"]}
    locked = re.findall(r"^([a-z0-9-]+)==(\S+)(?: \\|$)", (ROOT / "locks" / "image.txt").read_text(), re.MULTILINE)
    if missing := {f"pkg:pypi/{name}@{version}" for name, version in locked} - listed:
        raise CommandFailed(f"the SBOM does not name {', '.join(sorted(missing))}")
    return listed


def _build_platform(engine: Engine, base: str) -> None:
    _fetch_wheels(engine, base)
    dockerfile = str(ROOT / "compose" / "Dockerfile")
    arguments = ("--build-arg", f"BASE={base}", "--build-arg", "PIP_NO_INDEX=1", "-f", dockerfile, str(ROOT))
    _build(engine, "taskplatform", *arguments)
    _build(engine, "jobs", "--build-arg", f"IMAGE={name_of('taskplatform')}", str(HERE / "jobs"))


def _build_servers(engine: Engine, base: str) -> None:
    """Build stand-ins for the images of the servers."""
    for server in SERVERS:
        # Packages come over the host's network: the engine's own containers may reach none.
        arguments = ("--build-arg", f"BASE={base}", "--network", "host", "--target", server, str(HERE / "servers"))
        _build(engine, server, *arguments)


def _build(engine: Engine, part: str, *arguments: str) -> None:
    engine.docker("build", "--quiet", "--tag", name_of(part), *arguments, seconds=_BUILD_SECONDS)


def _debian(engine: Engine) -> str:
    """Give the engine the base image of the distribution's packages, whose archive is kept until `make clean`."""
    if not _ARCHIVE.exists():
        raise CommandFailed(f"there is no {_ARCHIVE}: mmdebstrap makes it, and TASKPLATFORM_BASE names another base")
    name = name_of("debian")
    if not engine.docker("images", "--quiet", name):
        engine.docker("import", str(_ARCHIVE), name, seconds=_BUILD_SECONDS)
    return name


def _fetch_wheels(engine: Engine, base: str) -> None:
    """Fetch what the image's lock names for the Python of `base`, so that the build needs no package index."""
    version = engine.docker(
        *("run", "--rm", "--network", "none", "--entrypoint", "python3", base),
        *("-c", "import sys; print('%d.%d' % sys.version_info[:2])"),
    ).strip()
    # pip compares markers with the Python that it runs in, which may be another release: all of them are fetched.
    lock = re.sub(
        r" ; (?!.*sys_platform).*(?= \\$)", "", (ROOT / "locks" / "image.txt").read_text(), flags=re.MULTILINE
    )
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as wanted:
        wanted.write(lock)
        wanted.flush()
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"),
            *("--only-binary=:all:", "--python-version", version, "--requirement", wanted.name, "--dest", str(_WHEELS)),
        ]
        run(command, dict(os.environ), seconds=_BUILD_SECONDS)
