"""Computes GLUE's metrics behind the interface of Hugging Face's `evaluate`, without the Hub.

`evaluate.load("glue", task)` downloads a script at first use and fails offline. This class computes the same values
with `ftsys.metrics`. It keeps STS-B's numbers in float64, where the Hub's script rounds them to float32. It holds its
rows in memory, so it needs no cache folder and no lock file. Importing this module imports `evaluate`, which takes
seconds; no other module does.
"""

from typing import Any

import datasets
import evaluate

from ftsys.errors import ConfigError
from ftsys.metrics import compute
from ftsys.tasks import GLUE

_SAME_AS = {"mnli_matched": "mnli", "mnli_mismatched": "mnli", "hans": "rte"}
"""Names that the Hub's script accepts besides the tasks, and the task with the same metrics (HANS: accuracy)."""

_DESCRIPTION = "The metrics of the GLUE benchmark (https://gluebenchmark.com), computed in process."
_INPUTS = """
Args:
    predictions: (S,) class ids, or numbers for stsb.
    references: (S,) the right ones.
Returns:
    A dict: "accuracy", "f1", "matthews_correlation", or "pearson" and "spearmanr", the metrics of the task.
"""


class GlueMetric(evaluate.Metric):
    """Computes the metrics of one GLUE task.

    Make it with `load_glue_metric`, or with `evaluate.load` after `ftsys offline-assets`.
    """

    def __init__(self, config_name: str | None = None, num_process: int = 1, **named: Any) -> None:
        """Take the arguments of `evaluate.Metric`. Raises ConfigError for a task that is not in GLUE.

        One process holds its rows in memory; several processes exchange them through a folder.
        """
        if _task_of(str(config_name)) not in GLUE:
            raise ConfigError(f"{config_name!r} is no GLUE task. Use one of {', '.join([*GLUE, *_SAME_AS])}.")
        named["keep_in_memory"] = num_process == 1
        super().__init__(config_name=config_name, num_process=num_process, **named)

    def _info(self) -> evaluate.MetricInfo:
        kind = "float64" if GLUE[_task_of(self.config_name)].regression else "int64"
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features({name: datasets.Value(kind) for name in ("predictions", "references")}),
            # No format="numpy", which is what the Hub's script asks for: datasets rounds to float32 there.
        )

    def _build_data_dir(self) -> str:
        """Make no folder if rows stay in memory, so that a read-only home folder causes no error."""
        return "" if self.keep_in_memory else str(super()._build_data_dir())

    def _compute(self, *, predictions: Any = None, references: Any = None, **_: Any) -> dict[str, float]:
        return compute(GLUE[_task_of(self.config_name)].metrics, predictions, references)


def load_glue_metric(task: str) -> evaluate.Metric:
    """Return the metric of a GLUE task, of "mnli_matched", "mnli_mismatched" or "hans"; needs no network.

    Raises ConfigError for an unknown task.
    """
    return GlueMetric(config_name=task)


def _task_of(name: str) -> str:
    return _SAME_AS.get(name, name)
