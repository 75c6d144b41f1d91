"""A rank's imports, less what no rank runs: about half of the time from the command to the first optimizer step.

Importing transformers' Trainer and one text encoder also imports torch's compiler (to mark functions of kernels that
encoders do not call), scipy, datasets and torch's sharded tensors (for object detection, for a check of a type, for
tensor parallelism), and reads the 2,000 files of all models, twice, to learn which names they define.
`install_import_hooks` puts the first off until somebody compiles, says that the second are absent, and keeps the
third beside other caches.

It is for processes that are ranks and nothing else: what a script of somebody's own finds in transformers is not ours
to change. Every hook does its work only when the module that it names is imported afterwards, and what another version
of a library does not have is left alone.
"""

import gc
import importlib
import sys
from collections.abc import Callable, Sequence
from functools import partial, wraps
from importlib.machinery import ModuleSpec, PathFinder
from types import SimpleNamespace
from typing import Any

from ftsys.fast_import.model_names import names_from_cache

ABSENT = ("is_scipy_available", "is_datasets_available", "is_torch_distributed_available")
"""Questions of transformers' that are answered with no. The last one stands for tensor and expert parallelism only."""

INDEXING = "torch._dynamo._trace_wrapped_higher_order_op"
SYMBOLIC = "torch.fx.experimental.symbolic_shapes"
Execute = Callable[[], None]
"""What executes the module that a hook is about."""


def install_import_hooks() -> None:
    """Let the imports that follow leave out what a rank does not run. Changes nothing that is imported already.

    The garbage collector is off from here to `imports_finished`: imports make millions of objects that stay.
    """
    gc.disable()
    sys.meta_path.insert(0, _Around())


def imports_finished() -> None:
    """What is loaded by now stays: the garbage collector is on from here, and looks at what comes later."""
    gc.freeze()
    gc.enable()


def _wrap(module: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
    """Let `module.name` be `wrapper` of it, if it is there."""
    if hasattr(module, name):
        setattr(module, name, wrapper(getattr(module, name)))


def _unless(loaded: str, first: Callable[..., Any]) -> Callable[[Any], Any]:
    """A wrapper that calls `first` until the module `loaded` is loaded, then what it wraps."""
    return lambda real: lambda *words, **options: (real if loaded in sys.modules else first)(*words, **options)


def _no(*_: Any) -> bool:
    return False


def _after_compile_marks(execute: Execute, marks: Any) -> None:
    """A function that is never to be compiled is called as it is while there is no compiler."""
    execute()
    never_compiled = marks._disable_dynamo

    def disable(function: Any = None, recursive: bool = True) -> Any:
        if function is None:
            return partial(disable, recursive=recursive)
        return wraps(function)(_unless("torch._dynamo", function)(never_compiled(function, recursive)))

    marks._disable_dynamo = disable


def _after_torch(execute: Execute, torch: Any) -> None:
    """`torch._dynamo` is a stand-in until something of it is wanted that marking functions does not need."""
    execute()
    stand_in = torch._dynamo = _uncalled_compiler()
    marking: dict[str, Callable[..., Any]] = {
        "disable": lambda function=None, recursive=True, **_: torch._disable_dynamo(function, recursive),
        "allow_in_graph": stand_in.allow_in_graph,
        "assume_constant_result": stand_in.assume_constant_result,
    }
    for name, mark in marking.items():
        _wrap(torch.compiler, name, _unless("torch._dynamo", mark))
    # it loads symbolic shapes before it looks whether the condition is one
    _wrap(torch, "_check_with", lambda check: lambda error, is_true, say: is_true is True or check(error, is_true, say))


class _StandIn:
    """Has what it is given; for anything else the module that it stands for is imported."""

    def __init__(self, module: str, **known: Any) -> None:
        self.__dict__.update(known)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._module), name)


def _uncalled_compiler() -> Any:
    """Stands for `torch._dynamo`: remembers what is marked for it, and knows what holds while nothing is compiled."""
    marked: list[Callable[..., Any]] = []

    def allow(function: Any) -> Any:
        marked.append(function)
        return function

    def constant(function: Any) -> Any:
        function._dynamo_marked_constant = True  # as torch does, which has no more to do either
        return function

    return _StandIn(
        "torch._dynamo",
        marked=marked,
        allow_in_graph=allow,
        assume_constant_result=constant,
        eval_frame=_StandIn("torch._dynamo.eval_frame", OptimizedModule=type("NothingIsCompiledYet", (), {})),
        utils=_StandIn("torch._dynamo.utils", get_optimize_ddp_mode=lambda: "ddp_optimizer"),  # torch's default
    )


def _around_compiler(execute: Execute, dynamo: Any) -> None:
    """The stand-in goes, and its marks are made."""
    stand_in = vars(sys.modules["torch"]).pop("_dynamo", None)
    execute()
    for function in getattr(stand_in, "marked", ()):
        dynamo.allow_in_graph(function)


def _around_masking(execute: Execute, masking: Any) -> None:
    """The one class that transformers' masks take from the compiler is fetched when a mask is made with it."""
    if INDEXING in sys.modules:
        return execute()

    def indexing() -> Any:
        return importlib.import_module(INDEXING).TransformGetItemToIndex()

    stand_in: Any = SimpleNamespace(TransformGetItemToIndex=indexing)
    sys.modules[INDEXING] = stand_in
    try:
        execute()
    finally:
        del sys.modules[INDEXING]


def _after_import_utils(execute: Execute, utils: Any) -> None:
    """What is absent, and the names of all models from a cache."""
    execute()
    for question in ABSENT:
        _wrap(utils, question, lambda _: _no)
    _wrap(utils, "define_import_structure", names_from_cache)


def _after_unwrapping(execute: Execute, unwrapping: Any) -> None:
    """No model is wrapped, and no parameter sharded, by what is not loaded."""
    execute()
    _wrap(unwrapping, "is_deepspeed_available", _unless("deepspeed", _no))
    _wrap(unwrapping, "is_torch_distributed_available", _unless("torch.distributed.fsdp", _no))
    _wrap(unwrapping, "model_has_dtensor", _unless("torch.distributed.tensor", _no))


def _after_optimizers(execute: Execute, optimizers: Any) -> None:
    """No parameter is sharded by what is not loaded."""
    execute()
    _wrap(optimizers, "has_mixed_dtensor", _unless("torch.distributed.tensor", _no))


def _after_init(execute: Execute, init: Any) -> None:
    """A tensor without values (device "meta", on which a checkpoint's model is built) is not filled with any."""
    execute()
    for name in ("_no_grad_normal_", "_no_grad_trunc_normal_", "_no_grad_uniform_"):
        _wrap(init, name, _unless_meta)


def _unless_meta(fill: Callable[..., Any]) -> Callable[..., Any]:
    return lambda tensor, *words, **options: tensor if tensor.is_meta else fill(tensor, *words, **options)


def _after_optimizer(execute: Execute, optimizer: Any) -> None:
    """An optimizer's step needs no mark at which a compiler would cut its graph."""
    execute()

    def marking(wrapper: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def of(step: Callable[..., Any]) -> Callable[..., Any]:
            def plain(self: Any, *words: Any, **options: Any) -> Any:
                with sys.modules["torch"].set_grad_enabled(self.defaults["differentiable"]):
                    return step(self, *words, **options)

            return wraps(step)(_unless("torch._dynamo", plain)(wrapper(step)))

        return of

    _wrap(optimizer, "_use_grad_for_differentiable", marking)


def _after_primitives(execute: Execute, primitives: Any) -> None:
    """The order of a contiguous tensor's dimensions is known without symbolic shapes."""
    execute()

    def known(order: Callable[..., Any]) -> Callable[..., Any]:
        def of(*tensors: Any, **options: Any) -> Any:
            plain = len(tensors) == 1 and not options and SYMBOLIC not in sys.modules
            if plain and tensors[0].ndim < 4 and tensors[0].is_contiguous():
                return list(range(tensors[0].ndim)), False
            return order(*tensors, **options)

        return of

    _wrap(primitives, "compute_elementwise_output_logical_to_physical_perm", known)


HOOKS: dict[str, Callable[[Execute, Any], None]] = {
    "accelerate.utils.other": _after_unwrapping,
    "torch": _after_torch,
    "torch._compile": _after_compile_marks,
    "torch._dynamo": _around_compiler,
    "torch._prims_common": _after_primitives,
    "torch.nn.init": _after_init,
    "torch.optim.optimizer": _after_optimizer,
    "transformers.masking_utils": _around_masking,
    "transformers.trainer_optimizer": _after_optimizers,
    "transformers.utils.import_utils": _after_import_utils,
}


class _Around:
    """A finder that has the modules of HOOKS executed by their hook."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        """The module's own spec, its execution handed to the hook."""
        hook, spec = HOOKS.get(name), None
        if hook is not None and (spec := PathFinder.find_spec(name, path, target)) and spec.loader is not None:
            execute = spec.loader.exec_module
            # On the instance, which was made for this spec alone: no other module is touched, and the loader keeps its
            # class, by which inspect and importlib.resources find sources. `setattr`, since it is typed as a method.
            setattr(spec.loader, "exec_module", lambda module: hook(lambda: execute(module), module))  # noqa: B010
        return spec
