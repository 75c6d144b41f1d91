"""Loads a trained classifier, and finds the way in which its batches are laid out: packed, padded, or of one length."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from ftsys.data.store.in_memory import TokenizedSplit
from ftsys.errors import ConfigError
from ftsys.kernels.select import PADDED, choose_kernel
from ftsys.model_files.config import PLAIN_OUTPUTS
from ftsys.model_files.load_errors import model_load_errors
from ftsys.model_files.remote_code import loading_code
from ftsys.model_files.unpaddable import UNPADDABLE
from ftsys.model_files.untrained import made_up, refuse_untrained
from ftsys.models.families import check_has_classifier
from ftsys.models.inputs import check_pad_token, name_pad_token
from ftsys.models.packed import PackedView, head_size, why_not_packable
from ftsys.models.proof.alterations import why_altered
from ftsys.models.proof.compare import why_unproven
from ftsys.models.proof.rows import proof_batches, token_budget
from ftsys.score.model import FoundModel
from ftsys.train.padding_side import padding_side
from ftsys.train.trainable.adapter_files import add_adapter_weights, base_folder, is_adapter, trained_whole


@dataclass(frozen=True)
class Layout:
    """The layout of a model's batches. `view` feeds packed ones; without it, rows are padded on `side`.

    `side` is "" for a model whose rows no padding leaves alone: then a batch has rows of one length. `reason` says why
    batches are not packed.
    """

    view: PackedView | None
    side: str = "right"
    reason: str = ""

    @property
    def name(self) -> str:
        """The layout's name: "packed", "padded on the right", "padded on the left" or "of one length"."""
        if self.view is not None:
            return "packed"
        return f"padded on the {self.side}" if self.side else "of one length"


def load_classifier(found: FoundModel, device: torch.device) -> PreTrainedModel:
    """Load the model in float32, in evaluation mode, on `device`.

    Raises:
        ConfigError: it cannot be loaded, or not all of its weights were trained.
    """
    trusted = found.trust_remote_code
    check_has_classifier(found.folder, trusted)
    adapter = is_adapter(found.folder)
    weights = base_folder(found.folder) if adapter else found.folder
    with model_load_errors(found.folder), loading_code(trusted):
        model, info = AutoModelForSequenceClassification.from_pretrained(
            weights,
            config=_config_of(found, weights),
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=trusted,
            ignore_mismatched_sizes=True,  # refused below; an adapter's base model may have another head
        )
    if adapter:
        add_adapter_weights(model, found.folder)
    replaced = trained_whole(found.folder) if adapter else set()
    refuse_untrained(found.name, model.base_model_prefix, made_up(info, replaced))
    loaded: PreTrainedModel = model.to(device).eval()
    return loaded


def _config_of(found: FoundModel, weights: Path) -> PreTrainedConfig:
    """Return the configuration: for an adapter without config.json, what lies beside it, of its base model's class."""
    trusted = found.trust_remote_code
    if (found.folder / "config.json").is_file():
        return AutoConfig.from_pretrained(found.folder, trust_remote_code=trusted, **PLAIN_OUTPUTS)
    kind = type(AutoConfig.from_pretrained(weights, trust_remote_code=trusted))
    return kind.from_dict(found.config, **PLAIN_OUTPUTS)


def find_layout(model: PreTrainedModel, rows: TokenizedSplit) -> Layout:
    """Return the layout for `model`, proved on `rows`: packed where that gives the results of padded rows.

    The rows must be the same on every rank and at every start, so that all of them decide alike.
    """
    device = next(model.parameters()).device
    name_pad_token(model, rows.tokenizer.pad_id)
    reason = why_not_packable(model) or why_altered(model)
    if reason is None:
        view = PackedView(model, PADDED)
        packed, padded = proof_batches(rows, token_budget(model.config, device), device, model.config.pad_token_id)
        view.kernel = choose_kernel("auto", device.type, head_size(model.config))
        reason = why_unproven(model, view, packed, padded, with_loss=False)
        if reason is None:
            return Layout(view)
        view.remove()
    return Layout(None, _side(model, rows), reason)


def _side(model: Any, rows: TokenizedSplit) -> str:
    """Return the side on which padding changes nothing; "" where there is none."""
    if model.config.model_type in UNPADDABLE:
        return ""
    try:
        check_pad_token(model, rows.tokenizer.pad_id)
        return padding_side(model, rows)
    except ConfigError:
        return ""
