"""Makes the sections on the configuration and the environment of the runs."""

from collections.abc import Mapping, Sequence

from ftsys.html_report.facts import RunFacts, flat_config
from ftsys.html_report.groups import differing_keys
from ftsys.html_report.parts import Details, Note, Part, Section, table

_LONGEST_VALUE = 300
_MOST_RUNS = 60


def configuration_section(runs: Sequence[RunFacts]) -> Section:
    """Return what differs between the runs, and everything that they have in common."""
    read = [run for run in runs if run.run is not None]
    if not read:
        return Section("Configuration", "configuration", [Note("No run file can be read.", "warning")])
    configs = [_with_plan(run) for run in read]
    parts: list[Part] = []
    differing = [key for key in differing_keys(configs) if key != "output_dir"] if len(read) > 1 else []
    if differing:
        rows = [
            [run.name, *(_value(config.get(key)) for key in differing)]
            for run, config in zip(read, configs, strict=True)
        ]
        parts.append(
            table(f"Values that differ between the runs{_first(rows)}", ["run", *differing], rows[:_MOST_RUNS])
        )
    elif len(read) > 1:
        parts.append(Note("The runs have the same configuration."))
    common = [[key, _value(value)] for key, value in configs[0].items() if key not in differing]
    name = read[0].name if len(read) == 1 else "all runs"
    parts.append(
        Details(f"Resolved configuration of {name}: {len(common)} values", table("In common", ["key", "value"], common))
    )
    return Section("Configuration", "configuration", parts)


def _first(rows: Sequence[object]) -> str:
    return f": the first {_MOST_RUNS} of {len(rows)} runs" if len(rows) > _MOST_RUNS else ""


_PLANNED = (
    "device",
    "ranks",
    "nodes",
    "backend",
    "zero_stage",
    "precision",
    "kernels",
    "micro_tokens",
    "total_steps",
    "warmup_steps",
)


def _with_plan(run: RunFacts) -> dict[str, object]:
    """Return the run file's values, and those of the plan that replaced "auto"."""
    planned = {f"plan.{key}": run.plan[key] for key in _PLANNED if key in run.plan}
    return {key: value for key, value in flat_config(run.run).items() if key != "output_dir"} | planned


def _value(value: object) -> str:
    text = str(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def environment_section(runs: Sequence[RunFacts]) -> Section:
    """Return versions, machine and variables; one column for each environment that differs."""
    found: dict[str, tuple[Mapping[str, object], list[str]]] = {}
    for run in runs:
        flat = _flat(run.environment)
        if flat:
            found.setdefault(repr(flat), (flat, []))[1].append(run.name)
    if not found:
        return Section("Environment", "environment", [Note("No run has recorded its environment.")])
    environments = list(found.values())[:6]
    keys = list(dict.fromkeys(key for flat, _ in environments for key in flat))
    names = (
        ["all runs"]
        if len(found) == 1
        else [
            f"{members[0]} and {len(members) - 1} more" if len(members) > 1 else members[0]
            for _, members in environments
        ]
    )
    rows = [[key, *(_value(flat.get(key, "")) for flat, _ in environments)] for key in keys]
    left = [Note(f"{len(found) - 6} more environments are left out.")] if len(found) > 6 else []
    return Section("Environment", "environment", [table("Environment", ["fact", *names], rows), *left])


def _flat(environment: Mapping[str, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in environment.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}: {name}": inner for name, inner in value.items()})
        elif key != "command":  # it names the run folder, so it differs in each run
            flat[key] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return {key: value for key, value in flat.items() if value not in (None, "", [])}
