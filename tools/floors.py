"""States who may import whom: the floor plan of `ftsys` and the rules for `launcher`, DeepSpeed and torch."""

from collections.abc import Iterable

from tools.imports import PACKAGES, Import

# The rooms of ftsys from the bottom up. A room may import from its own and from lower ones.
FLOORS = (
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
        "integrity",
        "lease",
        "distributed",
        "metrics",
        "untrusted",
        "labels",
    ),
    ("config", "fast_import", "model_files"),
    ("run_folder", "finished", "report"),
    ("data", "kernels"),
    ("models",),
    ("train",),
    ("score",),
    ("probe", "offline", "bench", "calibrate", "export", "html_report", "watch"),
    ("cli", "demo", "run_glue", "table", "sweep", "__main__"),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
STRANGERS = {frozenset(("data", "kernels"))}
PLANNER = "launcher.planner"
PLANNER_READS = {
    *("ftsys.config", "ftsys.errors", "ftsys.untrusted"),
    *("ftsys.model_files.config", "ftsys.model_files.parts", "ftsys.model_files.trained_weights"),
}
LAUNCHER_READS = PLANNER_READS | {
    *(
        "ftsys.__version__",
        "ftsys.console",
        "ftsys.cpus",
        "ftsys.did_you_mean",
        "ftsys.shipped",
        "ftsys.tasks",
        "ftsys.run_folder",
    )
}
PLANNING_ROOMS = {"train", "probe", "bench", "cli", "demo", "run_glue"}
HEAVY = {"torch", "transformers", "datasets", "deepspeed", "pandas", "sklearn", "scipy"}
STOCK_TRAINER = {"Trainer", "TrainingArguments"}


def room_of(module: str) -> str:
    """Return the room of a module of ftsys: "data" for ftsys.data.store.reader, "" for ftsys itself."""
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
    room = room_of(importer)
    if package == "ftsys" and room:
        return arrow_mistake(room, target)
    if package == "launcher":
        allowed = room in ("bench", "table") or (room in PLANNING_ROOMS and within(target, PLANNER))
        return None if allowed else f"{room or 'ftsys'} may not import {target}"
    return stack_mistake(room, found, package)


def target_of(found: Import) -> str:
    """Return the module that an import names; for `from ftsys import data` the room, `ftsys.data`."""
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


def arrow_mistake(room: str, target: str) -> str | None:
    other = room_of(target)
    if other == "__version__":
        return None
    if other not in FLOOR or room not in FLOOR:
        return f"{room} or {other} has no floor in the table of tools/floors.py"
    upward = FLOOR[other] > FLOOR[room]
    return f"{room} may not import {target}" if upward or frozenset((room, other)) in STRANGERS else None


def stack_mistake(room: str, found: Import, package: str) -> str | None:
    if room in ("train", "bench"):
        return None
    if package == "deepspeed":
        return "only train touches DeepSpeed"
    if package == "transformers" and (found.name in STOCK_TRAINER or found.module.startswith("transformers.trainer")):
        return "only train touches the stock Trainer"
    cheap = room in ("", "errors", "tasks", "files", "model_config", "config", "cli", "demo", "__main__")
    return f"{package} at the top of a cheap module" if cheap and package in HEAVY and not found.lazy else None
