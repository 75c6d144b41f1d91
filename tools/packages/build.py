"""Builds wheel and source distribution into dist/, without a network, and checks the files in both."""

import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from tools.packages.contents import missing

ROOT = Path(__file__).parents[2]
_SDIST = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"


def main(dist: Path = ROOT / "dist") -> int:
    """Build both packages, print their paths, and return 1 if a file is missing in one of them."""
    shutil.rmtree(ROOT / "build/lib", ignore_errors=True)  # a former build's files would be packed too
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(dist), "."]
    subprocess.run(wheel, cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-c", _SDIST, str(dist)], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    lacking = {path: missing(ROOT, _names(path)) for path in sorted(dist.glob("ftsys-*"))}
    for path, names in lacking.items():
        print(f"{path}: {'lacks ' + ', '.join(names) if names else 'complete'}")
    return int(any(lacking.values()))


def _names(path: Path) -> list[str]:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    with tarfile.open(path) as archive:
        return archive.getnames()


if __name__ == "__main__":
    sys.exit(main())
