"""Decides which data is fed packed, reads it as a split, and keeps the packed view of the model.

A data set of the user's own is packed where that changes nothing but the speed; else the reason is logged once.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments

from ftsys.data.batching.loader import Split
from ftsys.data.store.in_memory import NotPackable, TokenizedSplit, read_tokenized
from ftsys.distributed import all_gather_object
from ftsys.kernels.compiled_norm import why_not_compiled
from ftsys.kernels.select import choose_kernel, why_not_fast
from ftsys.models.inputs import check_pad_token, name_pad_token
from ftsys.models.packed import PackedView, head_size, why_not_packable
from ftsys.train.padding_side import padding_side
from ftsys.train.trainer.arguments import setting
from ftsys.train.trainer.packing_rules import check_fits, why_padded, with_labels_for

_LOG = logging.getLogger("ftsys")


class Packing:
    """The packed view of a Trainer's model, and its data sets as splits that can be packed."""

    def __init__(self, base: type[Trainer]) -> None:
        """Pad data where a subclass of `base` overrides a method: only the methods of `base` support packing."""
        self.view: PackedView | None = None
        """Feeds packed batches to the model; None where it is fed padded ones."""
        self.padding_side = "right"
        """The side on which a split of a store is padded, where the model is fed padded batches."""
        self.padded_because: str | None = None
        """Why the data that was last asked about is not packed."""
        self.padded_reasons: list[str] = []
        """All such reasons so far, each once."""
        self.eager_because: str | None = None
        """Why no rank compiles what `compile_regions` asks for: the first rank's reason that cannot."""
        self._users = 0
        self._base = base
        self._viewed: nn.Module | None = None
        self._read: dict[tuple[Any, ...], tuple[Any, TokenizedSplit]] = {}

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the view on the model while the body runs; after the outermost use the model is as it was before."""
        if self.view is not None:
            self.view.install()
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if self.view is not None and not self._users:
                self.view.remove()

    def attach_view(self, trainer: Trainer, split: Split) -> None:
        """Make the view of the Trainer's model, once for each model: `model_init` makes several. Collective.

        `padded_because` is set where the model cannot be packed, and `padding_side` is then found. Raises ConfigError
        where padding would change a row's logits, by another token than the model expects or on either side.
        """
        model, pad_id = trainer.model, split.tokenizer.pad_id
        if self._viewed is model:
            return
        name_pad_token(model, pad_id)
        if self.view is not None:
            self.view.remove()  # from the model before
        self.padded_because = why_not_packable(model) if setting(trainer.args, "packing") else "packing=False"
        self.view, self._viewed = None, model
        if self.padded_because is None:
            self.view = self._view_of(model, trainer.args)
        else:
            check_pad_token(model, pad_id)
            self.padding_side = padding_side(model, split)

    def _view_of(self, model: nn.Module, args: TrainingArguments) -> PackedView:
        device = args.device.type
        if setting(args, "compile_regions"):
            self.eager_because = next(filter(None, all_gather_object(why_not_compiled(device))), None)
        compiled = setting(args, "compile_regions") and self.eager_because is None
        return PackedView(model, choose_kernel(setting(args, "kernels"), device, head_size(model.config)), compiled)

    def packed_split(self, trainer: Trainer, data: Any, name: str, training: bool) -> TokenizedSplit | None:
        """Return `data` as a split, ready to be packed; None where it cannot be, and the reason is logged once."""
        reason = why_padded(trainer, self._base, training)
        if reason is None:
            try:
                return self._ready(trainer, self._split_of(trainer, data, name), training)
            except NotPackable as error:
                reason = str(error)
        self.padded_because = reason
        if reason not in self.padded_reasons:
            self.padded_reasons.append(reason)
            if trainer.args.process_index == 0:
                _LOG.warning("ftsys: padded batches and the stock data path, because %s", reason)
        return None

    def _ready(self, trainer: Trainer, split: TokenizedSplit, training: bool) -> TokenizedSplit:
        if training and not split.labelled:
            raise NotPackable("the data has no labels")
        viewed = self._viewed
        self.attach_view(trainer, split)
        assert self.view is not None  # `why_padded` has checked the model
        if viewed is not self._viewed:
            _say_slow(trainer.args, self.view)
        self.padded_because = None
        check_fits(split, trainer.model, self.view.longest)
        return split

    def _split_of(self, trainer: Trainer, data: Any, name: str) -> TokenizedSplit:
        """Read `data` as a split: a `Dataset` once, a list at every call, because its rows may have changed."""
        if getattr(data, "_fingerprint", None) is None:
            return self._read_split(trainer, data, name)
        if _key(trainer, data) in self._read:
            return self._read[_key(trainer, data)][1]
        split = self._read_split(trainer, data, name)  # which may settle the problem type, a part of the key
        self._read[_key(trainer, data)] = (data, split)  # the data is kept too, so that no other object gets its id
        return split

    def _read_split(self, trainer: Trainer, data: Any, name: str) -> TokenizedSplit:
        trainer._set_signature_columns_if_needed()
        split = read_tokenized(
            data,
            name=name,
            accepted=trainer._signature_columns,
            drop_others=trainer.args.remove_unused_columns,
            pad_id=_pad_token(trainer),
        )
        return with_labels_for(split, trainer.model.config, loss_is_models=trainer.label_smoother is None)


def _say_slow(args: TrainingArguments, view: PackedView) -> None:
    """Log on the first rank why "auto" did not choose the fastest attention kernel, where it did not."""
    slow = why_not_fast(args.device.type) if setting(args, "kernels") == "auto" else None
    if slow and args.process_index == 0:
        _LOG.warning("ftsys: attention kernel %r, because %s", view.kernel, slow)


def _key(trainer: Trainer, data: Any) -> tuple[Any, ...]:
    config = trainer.model.config
    return id(data), data._fingerprint, type(trainer.model), config.num_labels, config.problem_type


def _pad_token(trainer: Trainer) -> int:
    """Return the padding token of the tokenizer, else of the model, else 0."""
    tokenizer = getattr(trainer.data_collator, "tokenizer", None) or trainer.processing_class
    known = (getattr(tokenizer, "pad_token_id", None), trainer.model.config.pad_token_id, 0)
    return next(int(token) for token in known if token is not None)
