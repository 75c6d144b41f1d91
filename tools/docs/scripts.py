"""Writes the table of script shapes into the page of the Trainer's differences, with speeds from the record."""

import json
from pathlib import Path
from typing import Any

from tools.docs.markdown import table
from tools.docs.records import RESULTS

PAGE = Path(__file__).parents[2] / "docs/reference/trainer-differences.md"
START, END = "<!-- Written by `make docs` from the record: scripts -->\n\n", "\n<!-- end of scripts -->\n"

SCRIPTS: tuple[tuple[str, str, str], ...] = (
    (
        "`datasets.Dataset` or a list of dictionaries, tokenized",
        "yes: batches of whole steps, without padding",
        "datasets.Dataset",
    ),
    ("rows padded to `max_length`", "yes: the mask tells the padding", "max_length"),
    ('`set_format("torch")`', "yes", "set_format"),
    ("frozen layers", "yes", "frozen layers"),
    ("`model_init`, `hyperparameter_search`", "yes, each model is proved", ""),
    ("label smoothing by `label_smoothing_factor`", "yes", "label smoothing"),
    ("gradient accumulation", "yes", "accumulation"),
    ("several ranks under DDP", "yes", ""),
    (
        "a class of `torch.utils.data.Dataset`",
        "in the model; rows are read live, with the workers asked for",
        "torch Dataset",
    ),
    ("an `IterableDataset`", "in the model", "stream"),
    ("`set_transform`", "in the model", "set_transform"),
    ('several labels (`problem_type="multi_label_classification"`)', "in the model", "several labels"),
    ("class weights by `compute_loss_func`", "in the model", "class weights"),
    ("class weights by an overridden `compute_loss`", "in the model", "compute_loss"),
    ("distillation: a teacher called in `compute_loss`", "in the model; the teacher as it is", "teacher"),
    ("LoRA and other adapters of peft", "in the model", "LoRA"),
    ("a collator of its own", "in the model, where it pads on the right and gives a mask", "collator"),
    ("a head of its own that reads the first token", "yes, as the proof finds", ""),
    (
        "a head that reads all tokens, a layer that mixes positions",
        "no: other results for packed rows",
        "all tokens",
    ),
    ("BatchNorm", "no: it keeps statistics of whole batches", ""),
    ("forward hooks, replaced methods", "no: they would see packed rows", "hooks"),
    ("a layer in two places", "no: dropout belongs to a place", ""),
    ("DeepSpeed, with data that is packed in steps", "yes", ""),
    ("DeepSpeed with data of the script's own kind, FSDP, `torch_compile`", "no: others run the model", ""),
    ("a model family that is not in [the table](models.md)", "no", ""),
)
"""A script, the way its batches go, and its name in the record of `ftsys bench scripts`."""


def differences_page() -> str:
    """Return the page with today's table; the rest of it is written by hand."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{scripts_table()}{END}{after}"


def scripts_table() -> str:
    """Return the table; a shape that no record has measured has an empty cell."""
    speeds = _speeds()
    rows = [(script, way, speeds.get(name, "")) for script, way, name in SCRIPTS]
    return table(("Script", "Packed, or why not", "Speed against stock"), rows, right=[2])


def _speeds() -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted(RESULTS.glob("scripts-*.json")):
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for key, value in record["ratios"].items():
            _, _, name = key.removesuffix(": speed of ours / stock").partition(", ")
            found[name] = f"{value:.1f} x"
    return found
