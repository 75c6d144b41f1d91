"""Writes the spread over seeds into the model card of each run of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from ftsys.run_folder.layout import MODEL, MODEL_CARD
from ftsys.run_folder.model_card import add_spread
from ftsys.run_folder.results import read_results
from ftsys.table.results.collect import Entry


def update_cards(entries: Sequence[Entry]) -> None:
    """Write the spread into the cards of all entries with several finished seeds, in place of an earlier spread.

    Cards that a user has removed are left out. Raises RunFolderError, ConfigError for a card that cannot be read, and
    StorageError.
    """
    for entry in entries:
        folders = [result.cell.folder for result in entry.seeds]
        found = spread_over([read_results(folder) or {} for folder in folders])
        cards = [folder / MODEL / MODEL_CARD for folder in folders]
        for card in cards if len(cards) > 1 else ():
            if card.is_file():
                add_spread(card, found)


def spread_over(results: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Return the values of each metric, by split and metric; undefined ones are left out."""
    found: dict[str, dict[str, list[float]]] = {}
    for each in results:
        for split, metrics in each.get("metrics", {}).items():
            for metric, value in metrics.items():
                if metric != "examples" and value is not None:
                    found.setdefault(split, {}).setdefault(metric, []).append(float(value))
    return found
