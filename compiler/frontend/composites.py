"""What PyTorch does anew at every capture though nothing has changed: most of the time that a small graph takes.

`run_decompositions` looks for all composite operators, some 600, and gives each of them kernels that leave it whole,
which it takes away afterwards. Here the search and the kernels are remembered, while a capture of ours runs and for
nobody else. The names are private to PyTorch: where one is missing, nothing is remembered, and a capture takes a third
of a second longer.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch._ops import OpOverload
from torch._subclasses import fake_impls
from torch.export import exported_program

Table = Mapping[OpOverload, Callable[..., object]]
Kernels = dict[torch._C.DispatchKey, Callable[..., object]]
State = dict[OpOverload, tuple[Kernels, object]]  # kernels of every operator, and its fake if it has one
_SEARCH, _OVERRIDE = "_collect_all_valid_cia_ops", "_override_composite_implicit_decomp"

MOST = 8  # tables that are remembered: nearly always there is one

_lock = threading.RLock()
_found: dict[tuple[frozenset[str], int], set[OpOverload]] = {}
_made: dict[frozenset[tuple[OpOverload, Callable[..., object]]], State] = {}


@contextmanager
def remembered() -> Iterator[None]:
    """Captures in here take what earlier ones have found. One at a time: PyTorch's own override changes the operators
    for all threads."""
    with _lock:
        yield from _remembered()


def _remembered() -> Iterator[None]:
    search, override = (getattr(exported_program, name, None) for name in (_SEARCH, _OVERRIDE))
    if search is None or override is None:
        yield
        return
    setattr(exported_program, _SEARCH, lambda: _search(search))
    setattr(exported_program, _OVERRIDE, lambda table: _override(override, table))
    try:
        yield
    finally:
        setattr(exported_program, _SEARCH, search)
        setattr(exported_program, _OVERRIDE, override)


def _search(plain: Callable[[], set[OpOverload]]) -> set[OpOverload]:
    """All composite operators; looked for again when somebody has registered one."""
    registered = (
        frozenset(torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")),
        len(torch.ops._dir),
    )
    if registered not in _found:
        _found.clear()
        _found[registered] = plain()
    return _found[registered]


@contextmanager
def _override(plain: Callable[[Table], AbstractContextManager[None]], table: Table) -> Iterator[None]:
    """PyTorch's context in which the operators of a table stay whole; from the second time on by what it did the first
    time."""
    key = frozenset(table.items())
    if key not in _made:
        if len(_made) >= MOST:
            _made.clear()
        with plain(table):
            _made[key] = {op: (dict(op.py_kernels), fake_impls.op_implementations_dict.get(op)) for op in table}
            yield
        return
    before = {op: (dict(op.py_kernels), fake_impls.op_implementations_dict.get(op)) for op in table}
    _install(_made[key])
    try:
        yield
    finally:
        _install(before)


def _install(state: State) -> None:
    for op, (kernels, fake) in state.items():
        op.py_kernels.clear()
        op.py_kernels.update(kernels)
        op._dispatch_cache.clear()
        if fake is None:
            fake_impls.op_implementations_dict.pop(op, None)
        else:
            fake_impls.op_implementations_dict[op] = fake
