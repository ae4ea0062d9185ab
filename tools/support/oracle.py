"""One call through torch.compile(backend="llmchip"), fallback on, against eager PyTorch.

Structure, shape, type, strides, what shares memory with what, arguments that are changed in place and a module's own
tensors must be eager's, always. So must the bits, unless the chip took part in it and a product, a function or a
rounded sum did (`INEXACT`): there NaN must be in the same places, and the relative distance is told.
"""

import copy
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from runtime.pytorch.fallback import fallbacks, forget
from runtime.pytorch.subgraph import Part
from tools.support.cases import Case

REPEATS = 16  # of eager PyTorch, to see whether it agrees with itself
FAR = 0.15  # relative distance from which on an inexact result is told
# What NUMERICS does not promise PyTorch's own bits for: products, functions, and sums in an order of their own. Names
# of aten operators.
INEXACT = re.compile(
    # products
    r"(\w*mm|\w*mv|\w*dot|matmul|linear|conv\w*|attention\w*|einsum|bilinear|_?cdist\w*|_euclidean_dist|p?dist|addr|"
    r"outer|ger|"
    # functions
    r"exp\w*|log\w*|sin\w*|cos\w*|tan\w*|a(rc)?(sin|cos|tan)\w*|erf\w*|sigmoid|silu|gelu|glu|mish|softplus|"
    r"elu|selu|celu|pow|ldexp|sqrt|rsqrt|hypot|"
    r"\w*gamma\w*|i0\w*|i1\w*|special_\w+|sinc|angle|polar|hardswish|xlogy|nextafter|float_power|"
    r"sum|mean|var\w*|std\w*|\w*norm\w*|cum\w*|prod|\w*softmax|\w*loss\w*|avg_pool\w*|adaptive_avg\w*|"
    r"trace|nan\w*|interpolate|upsample\w*|"
    r"trapezoid|cross|renorm|histc|histogram\w*|kron|addcmul|addcdiv|lerp|lstm\w*|gru\w*|rnn\w*|mkldnn_rnn\w*|fft\w*|linalg\w*|"
    r"scatter_reduce|segment_reduce|index_(add|reduce)|unsafe_masked_index_put_accumulate|scatter_add|embedding_bag|grid_sampler\w*|\w*backward\w*|"
    r"\w*cell|multi_head\w*|transformer\w*|binary_cross\w*|rrelu\w*)"
)
# The sign of zero is ours (NUMERICS), or PyTorch's own changes with an element's place in memory: softshrink.
ZERO_IS_PLUS = re.compile(r"a?(max|min)(imum)?|clamp\w*|relu6?|hardtanh|threshold|softshrink|aminmax|\w*max_pool\w*")

TIED = frozenset({"topk", "sort", "argsort"})  # equal elements may come in any order


@dataclass(frozen=True)
class Verdict:
    """`outcome`: ok, raise, wrong or far. `chip`, `back`: whether some of it ran on the chip, or was told to fall
    back; `reason` is the first that was told."""

    outcome: str
    why: str = ""
    chip: bool = False
    back: bool = False
    reason: str = ""


class Seen(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function._schema.name.split("::")[1].strip("_"))
        return function(*args, **(kwargs or {}))


def judge(cases: Sequence[Case], together: int = 1) -> list[Verdict | None]:
    """A verdict on each call; None where eager PyTorch itself refuses.

    So many are compiled `together` as one function, which costs a fraction of compiling each. Only that a call is fine
    may be told then: what is off is judged alone.
    """
    verdicts: list[Verdict | None] = [None] * len(cases)
    able = [(number, case, names) for number, case in enumerate(cases) if (names := _names(case)) is not None]
    pending = [able[first : first + together] for first in range(0, len(able), together)]
    for group in pending:  # grows
        try:
            found = _judge([case for _, case, _ in group], [names for _, _, names in group])
        except _Apart:
            pending += [[call] for call in group]
            continue
        for call, verdict in zip(group, found, strict=True):
            verdicts[call[0]] = verdict
            if verdict and verdict.outcome != "ok" and len(group) > 1:
                pending.append([call])
    return verdicts


class _Apart(Exception):
    """Calls must be judged one by one: as one function they raise, share memory with each other or meet a fault."""


def _names(case: Case) -> set[str] | None:
    """The operators that eager PyTorch runs; None where it refuses. Apart from what is compared: linalg_svdvals takes
    another algorithm while it is watched."""
    seen = Seen()
    with torch.set_grad_enabled(case.gradients), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            (call,) = _copies([case])
            with seen:
                _results([call])
        except Exception:
            return None
    return seen.names


def _judge(cases: Sequence[Case], names: Sequence[set[str]]) -> list[Verdict | None]:
    """Verdicts on calls of one function."""
    single, gradients = len(cases) == 1, cases[0].gradients
    forget()
    torch._dynamo.reset()
    with torch.set_grad_enabled(gradients), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, mine = _copies(cases), _copies(cases)
        try:
            torch.manual_seed(1)
            want = _results(theirs)
            slopes = [_gradients(*pair) for pair in zip(want, theirs, strict=True)] if gradients else []
        except Exception:  # eager PyTorch refuses after all
            if single:
                return [None]
            raise _Apart from None
        before, compiled = _Count.chip, _compiled(single)
        try:
            torch.manual_seed(1)
            got = compiled(mine)
            slopes2 = [_gradients(*pair) for pair in zip(got, mine, strict=True)] if gradients else []
        except Exception as error:
            if not single:
                raise _Apart from error
            why = (str(error).strip().splitlines() or [""])[0]
            return [Verdict("raise", f"{type(error).__name__}: {why}")]
    chip, back = _Count.chip > before, bool(fallbacks())
    told = [f"{found.operator}: {found.reason}" for found in fallbacks()]
    faults = [found.reason for found in fallbacks() if found.fault]
    ours = [(result, *_changed(call)) for result, call in zip(got, mine, strict=True)]
    eagers = [(result, *_changed(call)) for result, call in zip(want, theirs, strict=True)]
    if not single and (faults or _sharing(pytree.tree_leaves(ours)) != _sharing(pytree.tree_leaves(eagers))):
        raise _Apart
    verdicts: list[Verdict | None] = []
    for number, case in enumerate(cases):
        # Of several it is not known which were on the chip.
        inexact = chip and (single or not back) and _is_inexact(case, names[number], eagers[number])
        zero = chip and (any(map(ZERO_IS_PLUS.fullmatch, names[number])) or _in_any_order(case, names[number]))
        result, *changed = ours[number]
        untied = (_untied(case, names[number], result, eagers[number][0]), *changed)
        outcome, why = compare(untied, eagers[number], case.undefined, inexact, zero)
        if outcome == "wrong" and single and not chip and not _repeats(case, eagers[number]):
            outcome, why = "ok", ""
        if outcome == "ok" and slopes:
            outcome, why = compare(slopes2[number], slopes[number])  # the float model's, whatever the chip computes
        if outcome == "ok" and faults:
            outcome, why = "fault", faults[0]
        verdicts.append(Verdict(outcome, why, chip, back, told[0] if told else ""))
    return verdicts


def _repeats(case: Case, want: Any) -> bool:
    """Whether eager PyTorch itself gives these bits again with its operands elsewhere in memory. LAPACK's least squares
    do not: sums follow how operands are aligned."""
    for number in range(REPEATS):
        kept = [torch.empty(size) for size in range(1, 3 * number + 1)]  # so that the next ones lie elsewhere
        (call,) = _copies([case])
        torch.manual_seed(1)
        (result,) = _results([call])
        del kept
        if compare((result, *_changed(call)), want, case.undefined)[0] != "ok":
            return False
    return True


def _compiled(single: bool) -> Callable[[Sequence["Call"]], list[Any]]:
    """Several calls must be one graph. Of a single call a graph break leaves pieces, so it is not in a loop, of which it
    would leave nothing."""
    if single:
        function = torch.compile(_result, backend="llmchip", dynamic=False)
        return lambda calls: [function(call) for call in calls]
    return torch.compile(_results, backend="llmchip", dynamic=False, fullgraph=True)


def _is_inexact(case: Case, names: set[str], seen: Any) -> bool:
    """Whether a product or a function takes part."""
    contracted = case.kwargs.get("alpha", 1) != 1  # PyTorch multiplies and adds at once
    floats = any(isinstance(x, Tensor) and not _counts(x) for x in pytree.tree_leaves(seen[:-1]))
    return floats and (contracted or any(map(INEXACT.fullmatch, names)))


def _in_any_order(case: Case, names: set[str]) -> bool:
    return bool(names & TIED) and not case.kwargs.get("stable")


def _untied(case: Case, names: set[str], got: Any, want: Any) -> Any:
    """`got`, with eager's places wherever ours name equal elements: in which order these come PyTorch does not promise
    (torch.topk, and torch.sort unless stable)."""
    x = next((given for given in case.args if isinstance(given, Tensor)), None)
    if x is None or not _in_any_order(case, names):
        return got
    mine, spec = pytree.tree_flatten(got)
    theirs, wanted = pytree.tree_flatten(want)
    if spec != wanted:
        return got
    pairs = zip(mine, theirs, strict=True)
    return pytree.tree_unflatten([w if _same_elements(x, g, w) else g for g, w in pairs], spec)


def _same_elements(x: Tensor, g: Any, w: Any) -> bool:
    """Whether both are places along one dimension, each at most once, that hold equal elements of `x`."""
    if not (isinstance(g, Tensor) and isinstance(w, Tensor) and _form(g) == _form(w) and w.dtype is torch.int64):
        return False
    if x.ndim != w.ndim or not x.ndim or not w.numel():
        return False
    for dim, size in enumerate(x.shape):
        once = bool((g.sort(dim).values.diff(dim=dim) > 0).all())
        inside = bool(((g >= 0) & (g < size) & (w < size)).all())
        rest = all(n == m for d, (n, m) in enumerate(zip(x.shape, w.shape, strict=True)) if d != dim)
        if once and inside and rest and not _differ(x.gather(dim, g), x.gather(dim, w), zero=True):
            return True
    return False


Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def _copies(cases: Sequence[Case]) -> list[Call]:
    return [copy.deepcopy((case.function, case.args, case.kwargs)) for case in cases]


def _result(call: Call) -> Any:
    function, args, kwargs = call
    return function(*args, **kwargs)


def _results(calls: Sequence[Call]) -> list[Any]:
    return [_result(call) for call in calls]


def _changed(call: Call) -> tuple[Any, ...]:
    """What a call may have changed: its arguments, and a module's tensors, statistics in train mode."""
    function, args, kwargs = call
    return args, kwargs, dict(function.state_dict()) if isinstance(function, torch.nn.Module) else {}


class _Count:
    chip = 0


def count_calls() -> None:
    """Let `judge` know whether the chip takes part. Once per process."""
    run = Part.__call__

    def counted(self: Part, *tensors: Tensor) -> tuple[Tensor, ...]:
        results = run(self, *tensors)
        _Count.chip += 1
        return results

    Part.__call__ = counted  # type: ignore[method-assign]


def _gradients(results: Any, call: Call) -> list[Tensor | None]:
    """Of the sum of all results, with respect to all arguments and weights."""
    function, args, kwargs = call
    own = [*function.parameters()] if isinstance(function, torch.nn.Module) else []
    wanted = [
        x
        for x in [*pytree.tree_leaves((args, kwargs)), *own]
        if isinstance(x, Tensor) and x.requires_grad and x.is_leaf
    ]
    summed = [
        x.sum() for x in pytree.tree_leaves(results) if isinstance(x, Tensor) and x.requires_grad and not x.is_complex()
    ]
    return list(torch.autograd.grad(summed, wanted, allow_unused=True)) if summed and wanted else []


def _counts(x: Tensor) -> bool:
    """Whether its elements are integers or truths."""
    return not x.is_floating_point() and not x.is_complex()


def compare(got: Any, want: Any, undefined: bool = False, inexact: bool = False, zero: bool = False) -> tuple[str, str]:
    """The verdict on results and arguments together. `undefined`: only their form counts; `zero`: not the sign of
    zero."""
    mine, spec = pytree.tree_flatten(got)
    theirs, wanted = pytree.tree_flatten(want)
    if spec != wanted:
        return "wrong", f"structure {spec}, not {wanted}"[:300]
    far = 0.0
    for number, (g, w) in enumerate(zip(mine, theirs, strict=True)):
        if not isinstance(w, Tensor):
            if type(g) is not type(w) or (g != w and g == g and not undefined and not callable(w)):
                return "wrong", f"leaf {number}: {g!r}, not {w!r}"[:200]
            continue
        if not isinstance(g, Tensor) or _form(g) != _form(w):
            return "wrong", f"leaf {number}: {_form(g)}, not {_form(w)}"
        g, w = _plain(g), _plain(w)
        if undefined or w.numel() == 0:
            continue
        bad = _differ(g, w, zero)
        if bad and not inexact:
            few = (x.flatten()[:3].tolist() for x in (g, w))
            where = f"leaf {number}: {bad} of {w.numel()} elements differ ({_form(w)})"
            return "wrong", f"{where}: {', not '.join(map(str, few))}"
        if bad:
            far = max(far, _distance(g, w))
    if _sharing(mine) != _sharing(theirs):
        return "wrong", f"shares memory as {_sharing(mine)}, not {_sharing(theirs)}"
    return ("far", f"relative distance {far:.3g}") if far > FAR else ("ok", "")


def _form(x: Any) -> str:
    if not isinstance(x, Tensor):
        return type(x).__name__
    strides = f" strides {x.stride()}" if x.layout is torch.strided else ""
    marks = f"{' conj' * x.is_conj()}{' neg' * x.is_neg()}{' grad' * x.requires_grad}"
    return f"{x.dtype}{list(x.shape)} {x.layout}{strides}{marks}"


def _plain(x: Tensor) -> Tensor:
    """Its elements as a dense tensor of real numbers."""
    x = x.detach()
    x = x.to_dense() if x.layout is not torch.strided else x
    x = x.int_repr() if x.is_quantized else x
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x.resolve_neg()


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _differ(g: Tensor, w: Tensor, zero: bool) -> int:
    """How many elements do; NaN has one value."""
    if not w.is_floating_point():
        return int((g != w).sum())
    view = _BITS[w.element_size()]
    bad = (g.contiguous().view(view) != w.contiguous().view(view)) & ~(g.isnan() & w.isnan())
    return int((bad & ~((g == 0) & (w == 0)) if zero else bad).sum())


def _distance(g: Tensor, w: Tensor) -> float:
    # what PyTorch leaves of halves that cancel, as in the norm of a single element, is the rounding of larger ones
    least = 1e-9 if w.dtype not in (torch.float16, torch.bfloat16) else torch.finfo(w.dtype).eps
    g, w = g.double(), w.double()
    if bool((g.isnan() != w.isnan()).any()):
        return float("inf")
    fine = g.isfinite() & w.isfinite()
    return float((g - w)[fine].norm() / w[fine].norm().clamp(min=least))


def _sharing(leaves: Sequence[Any]) -> list[tuple[int, int]]:
    """For each tensor the first leaf whose memory it shares, and its distance from there."""
    first: dict[int, tuple[int, int]] = {}
    found = []
    for number, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and leaf.layout is torch.strided and leaf.numel():
            offset = int(leaf.storage_offset())
            own, start = first.setdefault(leaf.untyped_storage().data_ptr(), (number, offset))
            found.append((own, offset - start))
    return found
