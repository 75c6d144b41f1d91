"""Decides which data is fed packed, reads it as a split, and keeps the packed view of the model.

A data set of the user's own is packed where that changes nothing but the speed; else the reason is logged once.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import Trainer, TrainingArguments

from ftsys.data.batching.collate import PackedBatch, PaddedBatch
from ftsys.data.batching.loader import Split
from ftsys.data.store.in_memory import NotPackable, TokenizedSplit, read_tokenized
from ftsys.distributed import all_gather_json
from ftsys.kernels.compiled_norm import why_not_compiled
from ftsys.kernels.select import PADDED, choose_kernel, why_not_fast
from ftsys.models.inputs import check_pad_token, name_pad_token
from ftsys.models.packed import PackedView, head_size, why_not_packable
from ftsys.models.proof.alterations import why_altered
from ftsys.models.proof.compare import why_unproven
from ftsys.models.proof.rows import proof_batches, token_budget
from ftsys.models.proof.unpad import UnpaddedForward
from ftsys.train.deepspeed_setup import whole_weights
from ftsys.train.padding_side import padding_side
from ftsys.train.trainer.arguments import setting
from ftsys.train.trainer.packing_rules import (
    check_fits,
    why_not_unpadded,
    why_padded,
    with_labels_for,
    without_adapters,
)

_LOG = logging.getLogger("ftsys")
KEPT_SPLITS = 3
"""Data sets that are kept as splits beside those of the Trainer itself."""


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
        self.in_training = False
        """True while a loop trains on packed batches, which needs the view that it began with."""
        self._users = 0
        self._base = base
        self._viewed: nn.Module | None = None
        self._modules: list[int] = []
        self._unproven: str | None = None
        self._unpadding: tuple[list[int], UnpaddedForward] | None = None
        self._unpads = False
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
        """Make the view of the Trainer's model and prove it on rows of `split`, once for each model. Collective.

        Once more where modules of the model were replaced, or `model_init` has made another model. `padded_because` is
        set where the model cannot be packed, and `padding_side` is then found for a store. Raises ConfigError where
        padding would change the logits of a store's rows, by another token than the model expects or on either side.
        """
        model, pad_id = trainer.model, split.tokenizer.pad_id
        if self._viewed is not model or not (self.in_training or self._modules == _modules_of(model)):
            name_pad_token(model, pad_id)
            if self.view is not None:
                self.view.remove()  # from the model before
            self.view, self._unproven = None, _first_of_all_ranks(_why_no_view(trainer))
            if self._unproven is None:
                self._prove(trainer, split)
            if self.view is None and not split.stock_semantics:
                check_pad_token(model, pad_id)
                self.padding_side = padding_side(model, split)
            self._viewed, self._modules = model, _modules_of(model)
        self.padded_because = self._unproven

    def _prove(self, trainer: Trainer, split: Split) -> None:
        """Make the view, and keep it where the results of a few rows are those of padded batches, on all ranks."""
        model, args = trainer.model, trainer.args
        kernel = choose_kernel(setting(args, "kernels"), args.device.type, head_size(model.config))
        own = split.stock_semantics and split.labelled and trainer.label_smoother is None
        with whole_weights(model):
            view, device = PackedView(model, kernel), next(model.parameters()).device
            if device.type != args.device.type:  # DeepSpeed moves the model later
                view.kernel = PADDED
            rows = proof_batches(split, token_budget(model.config, device), device, model.config.pad_token_id)
            found = why_unproven(model, view, *rows, with_loss=own)
        view.kernel, view.compiled = kernel, self._may_compile(args)
        self._unproven = _first_of_all_ranks(found)
        if self._unproven is None:
            self.view = view
        else:
            view.remove()

    def _may_compile(self, args: TrainingArguments) -> bool:
        """Return True where `compile_regions` asks for it and all ranks can. Collective."""
        if not setting(args, "compile_regions"):
            return False
        self.eager_because = _first_of_all_ranks(why_not_compiled(args.device.type))
        return self.eager_because is None

    def packed_split(self, trainer: Trainer, data: Any, name: str, training: bool) -> TokenizedSplit | None:
        """Return `data` as a split, ready to be packed; None where a rank cannot, and the reason is logged once.

        Collective: something may be on the model of one rank alone, such as a hook of a tracker. If that rank padded
        its batches by itself, its collectives would not be those of the others.
        """
        split, own_reason = self._split_or_reason(trainer, data, name, training)
        reason = _first_of_all_ranks(own_reason)
        if reason is None:
            try:
                assert split is not None  # there is no reason on this rank either
                return self._ready(trainer, split)
            except NotPackable as error:
                reason = str(error)
        self.padded_because = reason
        padded = _first_of_all_ranks(why_not_unpadded(trainer, training)) is not None
        way = "padded batches and the stock data path" if padded else "the stock data path, unpadded in the model"
        self._note(trainer, way, reason)
        return None

    def _split_or_reason(
        self, trainer: Trainer, data: Any, name: str, training: bool
    ) -> tuple[TokenizedSplit | None, str | None]:
        """Return `data` as a split, or this rank's own reason against packing it."""
        reason = why_padded(trainer, self._base, training)
        if reason is not None:
            return None, reason
        try:
            return self._split_of(trainer, data, name, training), None
        except NotPackable as error:
            return None, str(error)

    def _note(self, trainer: Trainer, way: str, reason: str) -> None:
        if reason not in self.padded_reasons:
            self.padded_reasons.append(reason)
            if trainer.args.process_index == 0:
                _LOG.warning("ftsys: %s, because %s", way, reason)

    @contextlib.contextmanager
    def unpadded(self, trainer: Trainer, training: bool) -> Iterator[None]:
        """Let the model leave out the padding of stock batches in the body, where its rules and the proof allow it.

        Collective: ranks choose the kernel together, so all of them do it, or none.
        """
        if self._unpads or _first_of_all_ranks(why_not_unpadded(trainer, training)) is not None:
            yield
            return
        unpadding, self._unpads = self._unpadding_of(trainer), True
        try:
            with unpadding.on(without_adapters(trainer.model)):
                yield
        finally:
            self._unpads = False

    def _unpadding_of(self, trainer: Trainer) -> UnpaddedForward:
        """Return what unpads the Trainer's model; it proves itself once, at the first batch."""
        model, args = without_adapters(trainer.model), trainer.args
        if self._unpadding is None or self._unpadding[0] != _modules_of(trainer.model):
            view = PackedView(model, choose_kernel(setting(args, "kernels"), args.device.type, head_size(model.config)))

            def prove(packed: PackedBatch, padded: PaddedBatch) -> str | None:
                # A hook may have come with on_train_begin. Ranks need not agree: either way gives the same gradients,
                # and a callback may call the model on one rank alone.
                reason = why_altered(trainer.model) or why_unproven(model, view, packed, padded, with_loss=False)
                if reason is not None:
                    self._note(trainer, "padded batches", reason)
                return reason

            unpadding = UnpaddedForward(view, args.process_index, token_budget(model.config, args.device), prove)
            self._unpadding = _modules_of(trainer.model), unpadding
        return self._unpadding[1]

    def read_again(self, trainer: Trainer, data: Any, name: str) -> TokenizedSplit:
        """Return training rows as they are now. Raises NotPackable where they cannot be packed any more."""
        return self._ready(trainer, self._split_of(trainer, data, name, training=True))

    def _ready(self, trainer: Trainer, split: TokenizedSplit) -> TokenizedSplit:
        """Return `split` once the model has a view. Collective. Raises NotPackable on all ranks where it has none."""
        viewed = self._viewed
        self.attach_view(trainer, split)
        if self.view is None:
            raise NotPackable(str(self.padded_because))
        if viewed is not self._viewed:
            _say_slow(trainer.args, self.view)
        check_fits(split, trainer.model, self.view.longest)
        return split

    def _split_of(self, trainer: Trainer, data: Any, name: str, training: bool) -> TokenizedSplit:
        """Read `data` as a split: a `Dataset` once, a list at every call, because its rows may have changed.

        Raises NotPackable, also for training rows without labels.
        """
        is_kept = getattr(data, "_fingerprint", None) is not None
        known = self._read.get(_key(trainer, data)) if is_kept else None
        split = self._read_split(trainer, data, name) if known is None else known[1]
        if is_kept:
            self._keep(trainer, data, split)
        if training and not split.labelled:
            raise NotPackable("the data has no labels")
        return split

    def _keep(self, trainer: Trainer, data: Any, split: TokenizedSplit) -> None:
        """Keep a split for as long as the Trainer holds its data, and the newest few of others."""
        key = _key(trainer, data)  # only now: reading may settle the problem type, a part of it
        self._read.pop(key, None)
        self._read[key] = data, split  # the data is kept too, so that no other object gets its id
        evaluated = trainer.eval_dataset
        held = [trainer.train_dataset, *(evaluated.values() if isinstance(evaluated, dict) else [evaluated])]
        others = [key for key, (known, _) in self._read.items() if not any(known is each for each in held)]
        for key in others[:-KEPT_SPLITS]:
            del self._read[key]

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


def _first_of_all_ranks(reason: str | None) -> str | None:
    """Return the lowest rank's reason, on every rank; None where no rank has any. Collective."""
    first: str | None = next(filter(None, all_gather_json(reason)), None)
    return first


def _why_no_view(trainer: Trainer) -> str | None:
    if not setting(trainer.args, "packing"):
        return "packing=False"
    return why_not_packable(trainer.model) or why_altered(trainer.model)


def _modules_of(model: nn.Module) -> list[int]:
    return [id(module) for module in model.modules()]


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
