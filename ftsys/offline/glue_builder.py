"""Writes a GLUE task's rows into the cache of `datasets`, in the layout of a download from the Hub.

Importing this module imports `datasets`, which takes a second.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetGenerationError

from ftsys.data.sources.source import Source
from ftsys.tasks import GLUE

_UNLABELLED_SCORE = -1.0
"""The Hub's value for a hidden test score of STS-B. A hidden class is -1, on the Hub and in a `TextBatch`."""


class GlueBuilder(datasets.GeneratorBasedBuilder):
    """Writes a task's splits with the Hub's columns, types and names.

    `idx` numbers the rows of a split from 0. The Hub's MRPC instead numbers the rows of the original files.
    """

    VERSION = datasets.Version("0.0.0")
    source: Source

    def _info(self) -> datasets.DatasetInfo:
        task = GLUE[self.config.name]
        label = datasets.Value("float32") if task.regression else datasets.ClassLabel(names=list(task.labels))
        columns = {name: datasets.Value("string") for name in task.columns}
        return datasets.DatasetInfo(
            features=datasets.Features({**columns, "label": label, "idx": datasets.Value("int32")})
        )

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [datasets.SplitGenerator(name=name, gen_kwargs={"split": name}) for name in self.source.splits]

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        columns = self.source.task.columns
        for batch in self.source.batches(split):
            texts = [batch.first] if batch.second is None else [batch.first, batch.second]
            for offset, (*row, label) in enumerate(zip(*texts, batch.labels.tolist(), strict=True)):
                known = _UNLABELLED_SCORE if math.isnan(label) else label
                index = batch.first_row + offset
                yield index, {**dict(zip(columns, row, strict=True)), "label": known, "idx": index}


def write_glue(source: Source, cache: Path, repository: str, revision: str) -> tuple[Path, bool]:
    """Write a source's task into the folder where `load_dataset(repository, task)` looks for it offline.

    `revision` names the folder, like the commit of a download. Returns the folder, and True if it was made now. An
    existing folder is complete, because `datasets` renames a finished folder into place. Raises what the source raises.
    """
    with_namespace = {"repo_id": repository} if "/" in repository else {}
    builder = GlueBuilder(
        cache_dir=str(cache),
        dataset_name=repository.rpartition("/")[2],
        config_name=source.task.name,
        hash=revision,
        **with_namespace,
    )
    folder = Path(builder.cache_dir)
    there = (folder / datasets.config.DATASET_INFO_FILENAME).is_file()
    if not there:
        builder.source = source
        try:
            builder.download_and_prepare()
        except DatasetGenerationError as error:  # `datasets` wraps whatever the source raises
            raise error.__cause__ or error from None
    return folder, not there
