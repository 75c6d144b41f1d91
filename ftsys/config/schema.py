"""Defines the typed tree of a run file: one frozen class for each section, one field for each key.

Values keep the type that TOML gives them; no text becomes a number. Two pairs of keys are alternatives (`epochs` or
`max_steps`, `global_size` or `global_tokens`): the key that is not used is None. Relative paths start at the current
folder, those of a bundle at that of the run file; "~" is the home folder; environment variables are not expanded.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ftsys.config.fields import (
    AutoCount,
    ClassWeights,
    Count,
    CountFromZero,
    Every,
    HomePath,
    ModelName,
    NamedPath,
    Number,
    OptionalCount,
    OptionalDropout,
    OptionalEpochs,
    Seconds,
    SourceName,
    Stage,
    Switch,
    Text,
    Texts,
    Whole,
    Write,
    known_offload,
    one_or_several,
)

DEFAULT_EPOCHS = 3.0
DEFAULT_GLOBAL_SIZE = 32


class Section(BaseModel):
    """Base of all sections: frozen, strict in its types, without unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", protected_namespaces=())


class TaskSection(Section):
    """The task: a GLUE task, "paraphrase", or a task of your own with columns and labels (or regression = true)."""

    name: Annotated[str, Write("text in quotes")] = ""
    """Name of the task: a GLUE task, "paraphrase" (the task of the synthetic sample), or a new name for your own task,
    which the other keys of this section then define."""
    columns: Texts = ()
    """Names of the one or two text columns. Empty: the columns of the known task."""
    labels: Texts = ()
    """Class names in the order of their ids, from 0. Empty: the labels of the known task; always empty for
    regression."""
    regression: Annotated[bool, Write("true or false")] = False
    """True if the model predicts a number; false if it predicts a class."""
    multi_label: Annotated[bool, Write("true or false")] = False
    """True if an example has any number of the labels, also none; false if it has exactly one. The label column then
    holds a list, names such as "joy;anger", or a digit for each label, such as "0110"."""
    metrics: Texts = ()
    """Names of the metrics; the first one selects the best checkpoint. Empty: the metrics of the known task; for your
    own task accuracy, or Pearson's and Spearman's correlation for regression, or micro F1, macro F1, subset accuracy
    and average precision for several labels."""
    label_column: Annotated[str, Write("text in quotes")] = ""
    """Name of the label column. Empty: the label column of the known task, "label" for your own task."""
    label_columns: Texts = ()
    """Names of one column of 0 and 1 for each label, instead of `label_column`; needs `multi_label`. `labels` has the
    same order. Empty `labels`: the labels are named like the columns."""


class DataSection(Section):
    """The source of the text, and the length of an example."""

    source: SourceName = "hub"
    """Source of the text: "hub" (GLUE on the Hugging Face Hub), "hub:NAME" (another data set of the Hub, or a folder in
    the same form), "synthetic" (the synthetic sample), a folder with GLUE's TSV files, or a table with one file for
    each split."""
    max_length: Annotated[int, Field(ge=8), Write("a whole number of tokens, 8 or above")] = 128
    """Maximum number of tokens of an example, special tokens included. Longer examples are truncated."""
    first_rows: Annotated[
        dict[str, Whole], Write("a table of splits and whole numbers above 0, such as {train = 1000}")
    ] = {}
    """Number of rows to use from the start of each named split. All rows of a split that is not named are used."""
    quoting: Annotated[Literal["auto", "csv", "none"], Write('"auto", "csv" or "none"')] = "auto"
    """Quoting of CSV and TSV files: "csv" (quotation marks around a field are removed) or "none" (they belong to the
    text). "auto": CSV is quoted; a TSV file is read as it can be, and refused if both ways are possible."""
    store: NamedPath = "auto"
    """Folder for the stores of tokenized data. "auto": $FTSYS_CACHE/stores, or ftsys/stores in the user's cache folder
    (usually ~/.cache)."""


class ModelSection(Section):
    """The pre-trained encoder."""

    name: ModelName = "bundled"
    """Name of a model on the Hub, or a model folder. "bundled": the small model that the `demo` extra installs."""
    head: Annotated[Literal["auto", "keep", "new"], Write('"auto", "keep" or "new"')] = "auto"
    """Classification head of a model that was trained for a task before. "auto": kept, with its outputs mapped to
    `task.labels` by name, and refused if the names differ; "keep": its outputs are taken in the order of `task.labels`;
    "new": newly initialized."""
    trust_remote_code: Annotated[bool, Write("true or false")] = False
    """Whether Python code in the model's folder or repository may run. Switch it on only for code that you have read:
    it may do all that you may do."""


class BatchSection(Section):
    """The size of an optimizer step, and of the micro-batches in which a device computes it."""

    global_size: OptionalCount = None
    """Number of examples in an optimizer step, summed over all ranks. 32 if neither size is given."""
    global_tokens: OptionalCount = None
    """Maximum number of real tokens in an optimizer step, summed over all ranks; an alternative to `global_size`."""
    order: Annotated[Literal["auto", "length_grouped", "random"], Write('"auto", "length_grouped" or "random"')] = (
        "auto"
    )
    """Order of the examples in an epoch. "auto": random with balanced token counts for packed batches, length-grouped
    for padded batches."""
    micro_tokens: AutoCount = "auto"
    """Maximum number of real tokens that a device computes in one micro-batch. "auto": the planner chooses."""

    @model_validator(mode="before")
    @classmethod
    def _default_size(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("global_size") is None and data.get("global_tokens") is None:
            return {**data, "global_size": DEFAULT_GLOBAL_SIZE}
        return data


class EarlyStopping(Section):
    """The end of training before its last step, once a metric stops improving."""

    metric: str = ""
    """Name of the metric. Empty: `train.keep_best`, or the task's first metric."""
    patience: Whole
    """Number of consecutive evaluations without a better value after which training ends."""
    threshold: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Difference to the best value up to which a better value does not count as better."""


class TrainSection(Section):
    """The length and the settings of training, evaluation and saving."""

    epochs: OptionalEpochs = None
    """Number of passes over the training split. 3 if neither length is given."""
    max_steps: OptionalCount = None
    """Number of optimizer steps; an alternative to `epochs`."""
    learning_rate: Number = 5e-5
    """Peak learning rate of the optimizer."""
    layer_decay: Annotated[float, Field(gt=0, le=1), Write("a number above 0, and 1 (no decay) at most")] = 1.0
    """Layer-wise decay of the learning rate: each layer's rate is the one above it times this number. 1.0: none."""
    dropout: OptionalDropout = None
    """Dropout at every place of the model that has dropout. Without it: as the model's config.json says."""
    freeze: Annotated[
        tuple[str, ...],
        BeforeValidator(one_or_several),
        Write('a part such as "embeddings", or a list such as ["embeddings", "layers.0-3"]'),
    ] = ()
    """Parts of the model that are not trained: "embeddings", "layers.N" and "layers.N-M" (from 0, the last one
    included), "encoder" (all but the head) or "head"; one, or a list."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Write("a whole number from 0 to 4294967295")] = 42
    """Seed for the weights of a new head, the order of the examples, and dropout."""
    class_weights: ClassWeights = "none"
    """Weight of each label in the loss of training; evaluations show the loss without weights. "balanced": rows /
    (labels * rows with the label); or numbers in the order of `task.labels`; or by name, 1.0 for names left out. The
    loss of a step is sum(weight * loss) / sum(weight) over all of its examples. With `task.multi_label` the weights are
    torch's `pos_weight`, and "balanced" is rows without the label / rows with it."""
    eval_every: Every = "epoch"
    """Interval of evaluations: "epoch", "never", or a number of optimizer steps."""
    save_every: Every = "epoch"
    """Interval of checkpoints: "epoch", "never", or a number of optimizer steps."""
    save_keep: Count = 2
    """Number of checkpoints to keep, in addition to the best one."""
    keep_best: Annotated[str, Write('the name of a metric in quotes, such as "f1"')] = ""
    """Name of a metric of the task, or "loss": the run ends with the weights of the evaluation with the best value.
    Each best evaluation then has a checkpoint. Empty: the run ends with the weights of its last step."""
    early_stopping: Annotated[
        EarlyStopping | None, Write('a table such as {metric = "f1", patience = 3}, patience a whole number above 0')
    ] = None
    """Ends training once a metric has not improved for `patience` consecutive evaluations. Its keys: `metric` (empty:
    `keep_best`, or the first metric of the task), `patience`, and `threshold` (0: any better value counts)."""
    resume: NamedPath = "auto"
    """Start point of a new attempt. "auto": the newest complete checkpoint, if there is one; "never": the pre-trained
    model; or the folder of a checkpoint."""
    max_nonfinite_steps: CountFromZero = 20
    """Number of consecutive optimizer steps that may be skipped because a loss or a gradient is not finite. One more
    ends the run with an error."""
    watchdog_seconds: Seconds = 300.0
    """Time in seconds without progress on any rank after which the run counts as hung and ends. 0: no watchdog."""

    @model_validator(mode="before")
    @classmethod
    def _default_length(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("epochs") is None and data.get("max_steps") is None:
            return {**data, "epochs": DEFAULT_EPOCHS}
        return data


class LoraSection(Section):
    """Low-rank adapters (LoRA) in place of training all weights. Needs peft: `pip install 'ftsys[lora]'`."""

    r: OptionalCount = None
    """Rank of the adapters, such as 8. Without it, all weights are trained and this section has no effect."""
    alpha: Number = 16.0
    """Scale: an adapter's product is multiplied by alpha / r."""
    dropout: Annotated[float, Field(ge=0, lt=1), Write("a number from 0 (none) to below 1")] = 0.0
    """Dropout in front of the adapters."""
    target_modules: Annotated[
        tuple[str, ...], BeforeValidator(one_or_several), Write('"auto", "all" or a list such as ["query", "value"]')
    ] = ("auto",)
    """Linear layers with an adapter. "auto": those of each attention (queries, keys, values, output); "all": all of
    each layer; or a list of names or ends of names, as peft takes them."""
    merge: Annotated[bool, Write("true or false")] = True
    """True: RUN_DIR/model is a whole model with the adapters added to its weights, and RUN_DIR/adapter the
    adapter alone. False: RUN_DIR/model is the adapter."""


class EngineSection(Section):
    """The way a step is computed. Except for rounding, no key of this section changes the result."""

    precision: Annotated[Literal["auto", "bf16", "fp16", "fp32"], Write('"auto", "bf16", "fp16" or "fp32"')] = "auto"
    """Number format of the model's weights and activations. "auto": the format that `deepspeed` names, else bf16 if the
    device computes it fast, else fp32."""
    zero_stage: Stage = "auto"
    """DeepSpeed's ZeRO stage: 1 shards the optimizer states over the ranks, 2 also the gradients, 3 also the weights.
    "auto": the stage that `deepspeed` names, else the planner chooses for the devices' memory."""
    offload: Annotated[
        str, AfterValidator(known_offload), Write('"none", "optimizer", "parameters" or "nvme:/path"')
    ] = "none"
    """State that is kept outside the GPU: "none", "optimizer" (optimizer states, in CPU memory), "parameters" (the
    weights too) or "nvme:/path" (both, on the disk at this path)."""
    activation_checkpointing: Switch = "auto"
    """True: activations are not kept but computed again in the backward pass. "auto": only if memory requires it."""
    backend: Annotated[Literal["auto", "deepspeed", "ddp", "none"], Write('"auto", "deepspeed", "ddp" or "none"')] = (
        "auto"
    )
    """Library that averages the gradients over the ranks; "none" is for one process. "auto": DeepSpeed under its own
    launcher and for ZeRO stages 1 to 3, otherwise DDP, or "none" for one process."""
    deepspeed: Annotated[HomePath, Write("the path of a DeepSpeed JSON file in quotes")] = ""
    """Path of your own DeepSpeed configuration (JSON). Empty: the configuration is generated."""
    kernels: Text = "auto"
    """Attention kernel. "auto": the fastest one available; "reference": a slow and simple one to compare with; or the
    name of a kernel, which is an error if that kernel is not available."""
    compile: Switch = "auto"
    """True: torch.compile fuses dropout, residual and LayerNorm. "auto": it does not, because ftsys' own kernels do."""
    cuda_graphs: Switch = "auto"
    """True: forward and backward passes are recorded as CUDA graphs, one for each of a few batch sizes, and replayed.
    Needs GPUs, no DeepSpeed, and `batch.global_size`. "auto": on one GPU, where that is possible, a step needs less
    than half of the GPU's memory, and the GPU is not predicted to compute a step for longer than the host needs to
    launch it."""


class LaunchSection(Section):
    """The machines on which `ftlaunch` starts the ranks. `ftsys train`, which is one of the ranks, does not read it."""

    nodes: Count = 1
    """Number of nodes. 1: all nodes of the SLURM allocation or of the hostfile, if there is one."""
    gpus_per_node: AutoCount = "auto"
    """Number of ranks on each node, one for each GPU. "auto": the slots of the hostfile, else all visible GPUs, or one
    process on a node without a GPU."""
    backend: Annotated[
        Literal["auto", "local", "hostfile", "slurm"], Write('"auto", "local", "hostfile" or "slurm"')
    ] = "auto"
    """Where the ranks are started: "local" (this machine), "hostfile" (ssh to the nodes of `--hostfile`) or "slurm"
    (the nodes of the allocation). "auto": the allocation if there is one, else the hostfile, else this machine."""


class RunTree(Section):
    """The whole tree of a run file, with each field checked on its own. `RunConfig` checks them together too."""

    output_dir: Annotated[HomePath, Write("text in quotes, not empty")] = ""
    """Path of the run folder, to which a run writes its results, checkpoints and logs."""
    bundle: Annotated[
        Annotated[HomePath, Field(min_length=1)] | None, Write("the folder of a bundle in quotes, or leave it out")
    ] = None
    """Folder made by `ftlaunch bundle`, relative to the folder of the run file. The run then takes model and store from
    it and uses no network. Without it, model and data are found by their names."""
    recipe: Annotated[
        Annotated[str, Field(min_length=1)] | None, Write("the name of a recipe in quotes, or leave it out")
    ] = None
    """Values for a family of models below those of the run file: the name of a shipped recipe, or the path of a .toml
    file. The page "Start from a recipe" has them."""
    task: TaskSection = TaskSection()
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    batch: BatchSection = BatchSection()
    train: TrainSection = TrainSection()
    lora: LoraSection = LoraSection()
    engine: EngineSection = EngineSection()
    launch: LaunchSection = LaunchSection()
    trainer: Annotated[dict[str, Any], Write("a [trainer] table")] = {}
    """Fields of TrainingArguments, with its defaults except `logging_steps = 10` and `report_to = "none"`."""
    table: Annotated[dict[str, Any], Write("a [table] table")] = {}
    """Rows and columns of `ftsys table`: the keys `models`, `tasks`, `seeds`, `transfer` and `by_task`, which
    the page "A table of models and tasks" describes. No other command reads this section."""
    sweep: Annotated[dict[str, Any], Write("a [sweep] table")] = {}
    """Settings of `ftsys sweep`: the keys `space`, `trials`, `objective`, `sampler` and `pruner`, which the page
    "Search for better values" describes. No other command reads this section."""
