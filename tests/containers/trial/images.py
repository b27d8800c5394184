"""The images of a trial: the platform's own from compose/Dockerfile, and stand-ins for the servers' public ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.containers.tools import ROOT, TOOLS
from tests.containers.trial.engine import CommandFailed, Engine, run

HERE = Path(__file__).resolve().parent
SERVERS = ("postgres", "rabbitmq", "valkey", "haproxy")
_SUITE = "bookworm"
_CACHE = ROOT / ".taskplatform" / "trial"
_WHEELS = ROOT / "compose" / "wheels"
_LEFT_OUT = ("doc", "man", "locale", "info")
_BUILD_SECONDS = 600.0


def name_of(part: str) -> str:
    """Give the name of an image of the trial."""
    return f"taskplatform-trial/{part}:latest"


def build(engine: Engine, tell: Callable[[str], None]) -> None:
    """Build every image, with what the engine has of them. Raises CommandFailed."""
    base = os.environ.get("TASKPLATFORM_BASE") or _debian(engine, tell)
    _fetch_wheels(engine, base)
    tell(f"Building the platform's image on {base}")
    argument = ("--build-arg", f"BASE={base}")
    dockerfile = str(ROOT / "compose" / "Dockerfile")
    _build(engine, "taskplatform", *argument, "--build-arg", "PIP_NO_INDEX=1", "-f", dockerfile, str(ROOT))
    jobs = ("--build-arg", f"IMAGE={name_of('taskplatform')}", str(HERE / "jobs"))
    _build(engine, "jobs", *jobs)
    tell("Building stand-ins for the images of the servers")
    for server in SERVERS:
        # Packages come over the host's network: the engine's own containers may reach none.
        _build(engine, server, *argument, "--network", "host", "--target", server, str(HERE / "servers"))


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


def _build(engine: Engine, part: str, *arguments: str) -> None:
    engine.docker("build", "--quiet", "--tag", name_of(part), *arguments, seconds=_BUILD_SECONDS)


def _debian(engine: Engine, tell: Callable[[str], None]) -> str:
    """Make a base image out of the distribution's packages; its archive is kept until `make clean`."""
    archive = _CACHE / f"{_SUITE}.tar"
    if not archive.exists():
        tell(f"Making a base image of Debian {_SUITE}")
        _CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            made = Path(folder) / archive.name
            exclusions = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in _LEFT_OUT]
            packages = "--include=python3,python3-venv,ca-certificates"
            command = ["mmdebstrap", "--variant=minbase", packages, *exclusions, _SUITE, str(made)]
            run(command, dict(os.environ), seconds=_BUILD_SECONDS)
            shutil.move(made, archive)
    name = name_of("debian")
    if not engine.docker("images", "--quiet", name):
        engine.docker("import", str(archive), name, seconds=_BUILD_SECONDS)
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
