"""Finds the files that the project ships beside its packages: documented run files, and the scripts of SLURM jobs."""

from pathlib import Path

from ftsys.errors import ConfigError

_PACKAGE = Path(__file__).parents[1]


def shipped(name: str, package: Path = _PACKAGE) -> Path:
    """Return the path of a shipped file, such as "configs/runs/demo.toml".

    A checkout has it next to `package`. A wheel puts it into share/ftsys of the folder that it was installed into: that
    of a virtual environment, of `pip install --user`, --prefix or --target. That folder is above the package in each
    case. Raises ConfigError if there is none.
    """
    for path in _places(name, package):
        if path.is_file():
            return path
    raise ConfigError(
        f"{name} is neither in {str(package.parent)!r} nor in share/ftsys of a folder above it: install ftsys again."
    )


def shipped_names(folder: str, package: Path = _PACKAGE) -> list[str]:
    """Return the names of the TOML files of a shipped folder, such as "configs/recipes", without the ending; sorted."""
    found = (list(place.glob("*.toml")) for place in _places(folder, package))
    return sorted(path.stem for path in next(filter(None, found), []))


def _places(name: str, package: Path) -> list[Path]:
    return [package.parent / name, *(folder / "share" / "ftsys" / name for folder in package.parents)]
