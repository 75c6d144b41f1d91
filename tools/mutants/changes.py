"""Lists the small changes of single nodes of a syntax tree, each of which the tests of a module should notice."""

import ast
import copy
from collections.abc import Callable, Iterator

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
BOUNDARIES: tuple[set[type[ast.cmpop]], ...] = ({ast.Lt, ast.LtE}, {ast.Gt, ast.GtE})
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
    ast.BitXor: ast.BitOr,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
Change = tuple[str, ast.AST, ast.AST]
"""The kind of a change, the node that it replaces, and the new node. "argument NAME" drops an argument of a call."""


def changes(node: ast.AST) -> Iterator[Change]:
    """Yield the changes of one node; those of nodes below it are left to their own call."""
    for kind, change in _CHANGES.items():
        if isinstance(node, kind):
            yield from change(node)
    for condition in _conditions(node):
        yield "condition", condition, ast.UnaryOp(ast.Not(), condition)


def _conditions(node: ast.AST) -> list[ast.expr]:
    """Return the conditions in a node that no change of an operator reaches."""
    found: list[ast.expr] = []
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        found = [node.test]
    elif isinstance(node, ast.comprehension):
        found = node.ifs
    elif isinstance(node, ast.BoolOp):
        found = node.values
    return [each for each in found if isinstance(each, ast.Name | ast.Call | ast.Attribute | ast.NamedExpr)]


def _with(node: ast.AST, **fields: object) -> ast.AST:
    """Return a copy of a node with other fields."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _compare(node: ast.Compare) -> Iterator[Change]:
    for index, operator in enumerate(node.ops):
        for other in COMPARISONS[type(operator)]:
            kind = "boundary" if {type(operator), other} in BOUNDARIES else "comparison"
            yield kind, node, _with(node, ops=[*node.ops[:index], other(), *node.ops[index + 1 :]])


def _bool_op(node: ast.BoolOp) -> Iterator[Change]:
    yield "boolean", node, _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())


def _unary(node: ast.UnaryOp) -> Iterator[Change]:
    if isinstance(node.op, ast.Not):
        yield "condition", node, node.operand
    elif isinstance(node.op, ast.USub | ast.Invert):
        yield "arithmetic", node, node.operand


def _arithmetic(node: ast.BinOp | ast.AugAssign) -> Iterator[Change]:
    if type(node.op) in ARITHMETIC:
        yield "arithmetic", node, _with(node, op=ARITHMETIC[type(node.op)]())


def _augmented(node: ast.AugAssign) -> Iterator[Change]:
    yield from _arithmetic(node)
    yield from _dropped(node)


def _constant(node: ast.Constant) -> Iterator[Change]:
    if isinstance(node.value, bool):
        yield "constant", node, ast.Constant(not node.value)
    elif isinstance(node.value, int | float):
        yield "constant", node, ast.Constant(node.value + 1)


def _call(node: ast.Call) -> Iterator[Change]:
    if isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
        yield "call", node.func, ast.Name(FUNCTIONS[node.func.id])
    for dropped in node.keywords:
        if dropped.arg is not None:
            yield f"argument {dropped.arg}", node, _with(node, keywords=[k for k in node.keywords if k is not dropped])


def _return(node: ast.Return) -> Iterator[Change]:
    if node.value is not None and not isinstance(node.value, ast.Constant):
        yield "return", node, ast.Return(ast.Constant(None))


def _dropped(node: ast.stmt) -> Iterator[Change]:
    yield "statement", node, ast.Pass()


def _expression(node: ast.Expr) -> Iterator[Change]:
    if not isinstance(node.value, ast.Constant):  # a docstring
        yield "statement", node, ast.Pass()


def _assignment(node: ast.Assign) -> Iterator[Change]:
    """Drop what is set in an object. Without a variable that is set, a function could not run at all."""
    if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
        yield "statement", node, ast.Pass()


_CHANGES: dict[type[ast.AST], Callable[..., Iterator[Change]]] = {
    ast.Compare: _compare,
    ast.BoolOp: _bool_op,
    ast.UnaryOp: _unary,
    ast.BinOp: _arithmetic,
    ast.AugAssign: _augmented,
    ast.Constant: _constant,
    ast.Call: _call,
    ast.Return: _return,
    ast.Expr: _expression,
    ast.Assign: _assignment,
    ast.Raise: _dropped,
    ast.Break: _dropped,
    ast.Continue: _dropped,
    ast.Delete: _dropped,
}
