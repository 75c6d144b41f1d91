"""States who may import whom: the layers of `ftsys` and the rules for `launcher`, DeepSpeed and torch."""

from collections.abc import Iterable

from tools.imports import PACKAGES, Import

# The packages of ftsys from the bottom up. A package may import from its own layer and from lower ones.
LAYERS = (
    (
        "errors",
        "console",
        "cpus",
        "tasks",
        "files",
        "cache",
        "ranks",
        "shipped",
        "recipes",
        "did_you_mean",
        "distributed",
        "metrics",
        "labels",
    ),
    ("config", "fast_import", "model_files"),
    ("run_folder", "report"),
    ("data", "kernels"),
    ("models",),
    ("train",),
    ("score", "finished"),
    ("probe", "offline", "bench", "calibrate", "export", "html_report", "watch"),
    ("cli", "demo", "run_glue", "table", "sweep", "__main__"),
)
LAYER = {name: layer for layer, names in enumerate(LAYERS) for name in names}
SEPARATE = {frozenset(("data", "kernels"))}
PLANNER = "launcher.planner"
PLANNER_READS = {
    *("ftsys.config", "ftsys.errors", "ftsys.files"),
    *("ftsys.model_files.config", "ftsys.model_files.parts", "ftsys.model_files.trained_weights"),
}
LAUNCHER_READS = PLANNER_READS | {
    *(
        "ftsys.__version__",
        "ftsys.console",
        "ftsys.cpus",
        "ftsys.did_you_mean",
        "ftsys.ranks",
        "ftsys.shipped",
        "ftsys.tasks",
        "ftsys.run_folder",
    )
}
MAY_PLAN = {"train", "probe", "bench", "cli", "demo", "run_glue"}
HEAVY = {"torch", "transformers", "datasets", "deepspeed", "pandas", "sklearn", "scipy"}
STOCK_TRAINER = {"Trainer", "TrainingArguments"}


def package_of(module: str) -> str:
    """Return the package of a module of ftsys: "data" for ftsys.data.store.reader, "" for ftsys itself."""
    return module.partition(".")[2].partition(".")[0]


def mistakes(importer: str, imports: Iterable[Import]) -> list[tuple[int, str]]:
    """Return the line and the reason of each import that the module `importer` may not have."""
    return [(found.line, reason) for found in imports if (reason := mistake(importer, found))]


def mistake(importer: str, found: Import) -> str | None:
    """Return the reason why the module `importer` may not have this import, or None if it may."""
    if found.module.startswith("."):
        return "a relative import"
    target = target_of(found)
    package, _, _ = target.partition(".")
    if importer.startswith("launcher"):
        return launcher_mistake(importer, target, package)
    owner = package_of(importer)
    if package == "ftsys" and owner:
        return layer_mistake(owner, target)
    if package == "launcher":
        allowed = owner in ("bench", "table") or (owner in MAY_PLAN and within(target, PLANNER))
        return None if allowed else f"{owner or 'ftsys'} may not import {target}"
    return library_mistake(owner, found, package)


def target_of(found: Import) -> str:
    """Return the module that an import names; for `from ftsys import data` the package, `ftsys.data`."""
    top = found.module in PACKAGES and found.name
    return f"{found.module}.{found.name}" if top else found.module


def within(module: str, package: str) -> bool:
    """Return True if `module` is `package` or lies in it."""
    return module == package or module.startswith(f"{package}.")


def launcher_mistake(importer: str, target: str, package: str) -> str | None:
    plans = within(importer, PLANNER)
    name, reads = (PLANNER, PLANNER_READS) if plans else ("launcher", LAUNCHER_READS)
    if package == "ftsys" and not any(within(target, one) for one in reads):
        return f"{name} may not import {target}"
    if plans and package == "launcher" and not within(target, PLANNER):
        return f"{name} may not import {target}"
    return f"{name} may not import {package}" if package in HEAVY else None


def layer_mistake(owner: str, target: str) -> str | None:
    other = package_of(target)
    if other == "__version__":
        return None
    if other not in LAYER or owner not in LAYER:
        return f"{owner} or {other} has no layer in the table of tools/import_order.py"
    upward = LAYER[other] > LAYER[owner]
    return f"{owner} may not import {target}" if upward or frozenset((owner, other)) in SEPARATE else None


def library_mistake(owner: str, found: Import, package: str) -> str | None:
    if owner in ("train", "bench"):
        return None
    if package == "deepspeed":
        return "only train touches DeepSpeed"
    if package == "transformers" and (found.name in STOCK_TRAINER or found.module.startswith("transformers.trainer")):
        return "only train touches the stock Trainer"
    cheap = owner in ("", "errors", "tasks", "files", "model_config", "config", "cli", "demo", "__main__")
    return f"{package} at the top of a cheap module" if cheap and package in HEAVY and not found.lazy else None
