"""A GLUE task's rows as `datasets` keeps what came from the Hub. Imports `datasets`, which takes a second."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from ftsys.data.sources.source import Source
from ftsys.tasks import GLUE

_UNLABELLED_SCORE = -1.0
"""What the Hub's STS-B has where a test row's score is hidden; classes have -1 there, which a `TextBatch` has too."""


class GlueBuilder(datasets.GeneratorBasedBuilder):
    """Writes a task's splits into the cache of `datasets`: the columns, types and names are the Hub's.

    `idx` counts the rows of a split from 0; the Hub's MRPC numbers the rows of the files that its splits were cut from.
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
    """Write a source's task where `load_dataset(repository, task)` looks for it offline.

    `revision` names the folder, as a commit does for what came from the Hub. Returns the folder and whether it was made
    now; one that is there already is whole, for `datasets` renames it into place. Raises what the source raises.
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
        builder.download_and_prepare()
    return folder, not there
