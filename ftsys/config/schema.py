"""The tree of a run: one frozen class a section of the run file, one field a key, each with its unit.

Values are taken as TOML gives them: no text is turned into a number, no number into text. Of two keys that say the same
thing in two ways (`epochs` or `max_steps`, `global_size` or `global_tokens`), the one that is not used is None.
Relative paths are meant from the folder the command is started in; no environment variable in a value is expanded.
Where a run file names a bundle, the bundle and the DeepSpeed file in it are meant from the run file's own folder.
"""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from ftsys.config.checks import cross_mistakes, known_offload
from ftsys.config.old_words import todays_word
from ftsys.errors import ConfigError

DEFAULT_EPOCHS = 3.0
DEFAULT_GLOBAL_SIZE = 32


@dataclass(frozen=True)
class Write:
    """What a user is to write for a field; the second half of its error messages."""

    text: str


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _no_lookalike(value: Any) -> Any:
    if isinstance(value, bool | float):  # Literal[0, 1] takes False, True and 1.0 for its own
        raise ValueError("no whole number")
    return value


def _no_means_never(value: Any) -> Any:
    return "never" if value == "no" else value


Whole = Annotated[int, Field(gt=0)]
Text = Annotated[str, Field(min_length=1), Write("text in quotes, not empty")]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple), Write('a list of texts, such as ["first", "second"]')]
Count = Annotated[Whole, Write("a whole number above 0")]
OptionalCount = Annotated[Whole | None, Write("a whole number above 0")]
CountFromZero = Annotated[int, Field(ge=0), Write("a whole number, 0 or above")]
Number = Annotated[float, Field(gt=0, allow_inf_nan=False), Write("a number above 0")]
OptionalNumber = Annotated[
    Annotated[float, Field(gt=0, allow_inf_nan=False)] | None,
    Write("a number above 0"),
]
Every = Annotated[
    Literal["epoch", "never"] | Whole,
    BeforeValidator(_no_means_never),
    Write('"epoch", "never" or a whole number of steps above 0'),
]
Stage = Annotated[Literal["auto", 0, 1, 2, 3], BeforeValidator(_no_lookalike), Write('"auto", 0, 1, 2 or 3')]
Switch = Annotated[Literal["auto"] | bool, Write('"auto", true or false')]
AutoCount = Annotated[Literal["auto"] | Whole, Write('"auto" or a whole number above 0')]


class Section(BaseModel):
    """What all sections share: frozen, strict, no key but their own."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())


class TaskSection(Section):
    """A GLUE name, "paraphrase", or a name with columns and labels (or regression = true) of one's own."""

    name: Annotated[str, Write("text in quotes")] = ""
    """Name of a GLUE task, "paraphrase" (the synthetic sample's), or of a task that this section describes."""
    columns: Texts = ()
    """Text columns, one or two; empty: the known task's own."""
    labels: Texts = ()
    """Class names in the order of their ids; empty: the known task's own, or none for regression."""
    regression: Annotated[bool, Write("true or false")] = False
    """Whether the label is a number to predict rather than a class."""
    metrics: Texts = ()
    """Metric names, the one that decides which checkpoint is best first; empty: the known task's own, else accuracy
    for classes, Pearson's and Spearman's correlation for regression."""
    label_column: Annotated[str, Write("text in quotes")] = ""
    """Column that holds the label; empty: the known task's own, else "label"."""


class DataSection(Section):
    """Where text comes from and how much of it an example keeps."""

    source: Annotated[
        Annotated[str, Field(min_length=1)] | dict[str, Annotated[str, Field(min_length=1)]],
        BeforeValidator(partial(todays_word, "data.source")),
        Write(
            '"hub", "hub:NAME", "synthetic", a folder of GLUE files, '
            'or a table such as {train = "a.csv", validation = "b.csv"}'
        ),
    ] = "hub"
    """"hub" (GLUE), "hub:NAME" (another data set of the Hub, or a folder in its form), "synthetic" (the synthetic
    sample), a folder of GLUE's TSV files, or a file for each split."""
    max_length: Annotated[int, Field(ge=8), Write("a whole number of tokens, 8 or above")] = 128
    """Tokens an example keeps at most, special tokens included."""
    first_rows: Annotated[
        dict[str, Whole], Write("a table of splits and whole numbers above 0, such as {train = 1000}")
    ] = {}
    """Rows of a split that are used, the first ones; all of a split that is not named."""
    store: Text = "auto"
    """Folder in which stores live; "auto": $FTSYS_CACHE/stores, else the user's cache folder."""


class ModelSection(Section):
    """The pre-trained encoder."""

    name: Annotated[Text, BeforeValidator(partial(todays_word, "model.name"))] = "bundled"
    """Hub name or folder; "bundled": the model that the `demo` extra carries."""


class BatchSection(Section):
    """What an optimizer step sees and what a device computes at once."""

    global_size: OptionalCount = None
    """Examples an optimizer step sees, whatever the number of ranks; 32 where neither size is given."""
    global_tokens: OptionalCount = None
    """Real tokens an optimizer step sees at most, instead of a number of examples."""
    order: Annotated[Literal["auto", "length_grouped", "random"], Write('"auto", "length_grouped" or "random"')] = (
        "auto"
    )
    """Order of examples in an epoch; "auto": random with token balance when packed, length-grouped when padded."""
    micro_tokens: AutoCount = "auto"
    """Real tokens a device computes in one micro-batch."""

    @model_validator(mode="before")
    @classmethod
    def _default_size(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("global_size") is None and data.get("global_tokens") is None:
            return {**data, "global_size": DEFAULT_GLOBAL_SIZE}
        return data


class TrainSection(Section):
    """How long and how to train, and what is saved on the way."""

    epochs: OptionalNumber = None
    """Passes over the training split; 3 where neither length is given."""
    max_steps: OptionalCount = None
    """Optimizer steps, instead of epochs."""
    learning_rate: Number = 5e-5
    """Peak learning rate of AdamW."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Write("a whole number from 0 to 4294967295")] = 42
    """Seed of the head's weights, the order of examples and dropout."""
    eval_every: Every = "epoch"
    """"epoch", "never" or optimizer steps between evaluations."""
    save_every: Every = "epoch"
    """"epoch", "never" or optimizer steps between checkpoints."""
    save_keep: Count = 2
    """Checkpoints kept, besides the best one."""
    resume: Text = "auto"
    """"auto": from the newest complete checkpoint if there is one; "never"; or a checkpoint's folder."""
    max_nonfinite_steps: CountFromZero = 20
    """Optimizer steps in a row that may be skipped for a loss or gradient that is not finite."""
    watchdog_seconds: Annotated[
        float, Field(ge=0, allow_inf_nan=False), Write("a number of seconds, 0 (off) or above")
    ] = 300.0
    """Seconds without progress after which a rank counts as hung; 0 switches the watchdog off."""

    @model_validator(mode="before")
    @classmethod
    def _default_length(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("epochs") is None and data.get("max_steps") is None:
            return {**data, "epochs": DEFAULT_EPOCHS}
        return data


class EngineSection(Section):
    """How a step is computed; never what it computes."""

    precision: Annotated[Literal["auto", "bf16", "fp16", "fp32"], Write('"auto", "bf16", "fp16" or "fp32"')] = "auto"
    """Number format of weights and activations in the model."""
    zero_stage: Stage = "auto"
    """DeepSpeed's ZeRO stage: 1 splits optimizer states over the ranks, 2 gradients too, 3 weights too."""
    offload: Annotated[
        str, AfterValidator(known_offload), Write('"none", "optimizer", "parameters" or "nvme:/path"')
    ] = "none"
    """What is held outside the GPU: optimizer states, also parameters, or both on the disk at the path."""
    activation_checkpointing: Switch = "auto"
    """Whether activations are computed again in the backward pass, not kept; "auto": where memory asks for it."""
    backend: Annotated[Literal["auto", "deepspeed", "ddp", "none"], Write('"auto", "deepspeed", "ddp" or "none"')] = (
        "auto"
    )
    """Who averages gradients; "none" is one process, "auto" is deepspeed under its launcher and for ZeRO 1 to 3."""
    deepspeed: Annotated[str, Write("the path of a DeepSpeed JSON file in quotes")] = ""
    """Path of a DeepSpeed JSON of the user's own; empty: generated."""
    kernels: Text = "auto"
    """"auto", "reference" for the slow truth, or a kernel's name to demand it."""
    compile: Switch = "auto"
    """Whether torch.compile fuses what lies between matrix products; "auto": on a GPU where the run is long enough."""
    cuda_graphs: Annotated[bool, Write("true or false")] = False
    """Whether passes are recorded once for each of few batch sizes and replayed: one GPU, batch.global_size."""


class LaunchSection(Section):
    """Which machines ranks are started on."""

    nodes: Count = 1
    """Machines."""
    gpus_per_node: AutoCount = "auto"
    """Ranks a machine runs, one a GPU; "auto": the GPUs seen, or one process a CPU machine."""
    backend: Annotated[
        Literal["auto", "local", "hostfile", "slurm"], Write('"auto", "local", "hostfile" or "slurm"')
    ] = "auto"
    """Who starts the ranks."""


class RunConfig(Section):
    """A whole run, frozen. Built by `load_run` or `build_run`, which report every mistake in one ConfigError."""

    output_dir: Annotated[str, Write("text in quotes, not empty")] = ""
    """Run folder."""
    bundle: Annotated[
        Annotated[str, Field(min_length=1)] | None, Write("the folder of a bundle in quotes, or leave it out")
    ] = None
    """Folder that `ftlaunch bundle` made, meant from the run file's own folder: model and store are taken from it, and
    no network is used. The bundle's run file has it; None: model and data are looked for by their names."""
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    batch: BatchSection = BatchSection()
    train: TrainSection = TrainSection()
    engine: EngineSection = EngineSection()
    launch: LaunchSection = LaunchSection()
    trainer: Annotated[dict[str, Any], Write("a [trainer] table")] = {}
    """Any other field of transformers' TrainingArguments, passed through."""

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> "RunConfig":
        if not (info.context or {}).get("unchecked"):
            ConfigError.raise_if(mistake.text for mistake in cross_mistakes(self))
        return self
