"""`make support-ops`: PyTorch's own operator and module tests through torch.compile(backend="llmchip"), fallback on, against eager PyTorch.

Every sample of `op_db` and `module_db` (torch.testing._internal) must come back as eager PyTorch gives it: structure, shape, type, strides, what shares
memory with what, arguments that are changed in place; and bits, unless a product, a function or a rounded sum takes part (`INEXACT`). There
NaN must be in the same places, and the relative distance is told.

    python -m tools.support_ops                     every operator and module, all samples (hours)
    python -m tools.support_ops --samples 6         at most six samples of each, spread over all of them
    python -m tools.support_ops --only '^nn' --types float32 --json found.json
"""

import argparse
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TYPES = ("float32", "bfloat16", "float16", "int64", "int32", "bool")
SECONDS = 600  # that one operator may take, for all types and samples
FAR = 0.15  # relative distance from which on an inexact result is told
# What NUMERICS does not promise PyTorch's own bits for: products, functions, and sums in an order of their own. Names of aten operators.
INEXACT = re.compile(
    r"(\w*mm|\w*mv|\w*dot|matmul|linear|conv\w*|attention\w*|einsum|bilinear|cdist|pdist|addr|outer|ger|"  # products
    r"exp\w*|log\w*|sin\w*|cos\w*|tan\w*|a(rc)?(sin|cos|tan)\w*|erf\w*|sigmoid|silu|gelu|mish|softplus|elu|selu|celu|pow|sqrt|rsqrt|hypot|"  # functions
    r"\w*gamma\w*|i0\w*|i1\w*|special_\w+|sinc|angle|polar|hardswish|xlogy|nextafter|float_power|"
    r"sum|mean|var\w*|std\w*|\w*norm\w*|cum\w*|prod|softmax|log_softmax|\w*loss\w*|avg_pool\w*|adaptive_avg\w*|trace|nan\w*|interpolate|upsample\w*|"
    r"trapezoid|cross|renorm|histc|histogram\w*|kron|addcmul|addcdiv|lerp|lstm\w*|gru\w*|rnn\w*|fft\w*|linalg\w*|scatter_reduce|segment_reduce|"
    r"index_(add|reduce)|scatter_add|embedding_bag|grid_sampler\w*|\w*backward|\w*cell|multi_head\w*|transformer\w*|binary_cross\w*|rrelu\w*)"
)


@dataclass(frozen=True)
class Case:
    """One call: a function of (args, kwargs), made anew for each side."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.support_ops", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=0, help="at most so many of each operator and type (default: all)")
    parser.add_argument("--only", default="", help="names that match this regular expression")
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where every finding is written")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        for line in sys.stdin:
            for row in _run(line.strip(), given.types.split(","), given.samples):
                print(json.dumps(row), flush=True)
        return 0
    names = [name for name in _names() if re.search(given.only, name)]
    print(f"{len(names)} operators and modules, {given.samples or 'all'} samples of each type, {given.workers} workers", flush=True)
    queue = iter(names)
    with ThreadPoolExecutor(given.workers) as pool:
        rows = [row for part in pool.map(lambda n: _watch(queue, given), range(given.workers)) for row in part]
    return _report(rows, given.json)


def _names() -> list[str]:
    from torch.testing._internal.common_methods_invocations import op_db
    from torch.testing._internal.common_modules import module_db

    return [f"op {op.formatted_name}" for op in op_db] + [f"{mode} {m.name}" for m in module_db for mode in ("eval", "train")]


def _watch(queue: Iterator[str], given: argparse.Namespace) -> list[dict[str, Any]]:
    """A child of its own for each name: what kills or hangs one costs no other."""
    rows: list[dict[str, Any]] = []
    command = [sys.executable, "-m", "tools.support_ops", "--child", "--types", given.types, "--samples", str(given.samples)]
    environment = {**os.environ, "LLMCHIP_CACHE": "off", "OMP_NUM_THREADS": "1"}
    environment.pop("LLMCHIP_STRICT", None)
    while names := [name for _, name in zip(range(12), queue, strict=False)]:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            try:
                text = "\n".join(names)
                done = subprocess.run(command, input=text, stdout=out, stderr=err, text=True, env=environment, timeout=SECONDS * len(names), check=False)
                ended = "" if done.returncode == 0 else f"the process died with exit code {done.returncode}"
            except subprocess.TimeoutExpired:
                ended = f"no answer in {SECONDS * len(names)} s"
            out.seek(0)
            found = [json.loads(line) for line in out if line.startswith("{")]
            if ended:
                err.seek(0)
                last = found[-1]["name"] if found else names[0]
                found.append({"name": last, "type": "", "samples": 0, "raise": [f"{ended} at or after it: {err.read()[-300:]}"], "wrong": [], "far": []})
        rows += found
        for row in found:
            for kind in ("raise", "wrong"):
                if row[kind]:
                    print(f"{kind:5} {row['name']} {row['type']} ({len(row[kind])} of {row['samples']}): {row[kind][0][:180]}", flush=True)
    return rows


def _report(rows: Sequence[dict[str, Any]], path: Path | None) -> int:
    count: Counter[str] = Counter()
    for row in rows:
        count["pairs"] += 1
        count["samples"] += row["samples"]
        for kind in ("raise", "wrong", "far"):
            count[f"{kind} samples"] += len(row[kind])
            count[f"{kind} pairs"] += bool(row[kind])
    if path:
        path.write_text(json.dumps([row for row in rows if row["raise"] or row["wrong"] or row["far"]], indent=1), encoding="utf-8")
    print(f"{count['pairs']} pairs of operator and type, {count['samples']} samples: {count['raise pairs']} pairs raise, {count['wrong pairs']} are wrong "
          f"({count['raise samples']} and {count['wrong samples']} samples); "
          f"far from eager where products or functions take part: {count['far pairs']}")  # fmt: skip
    return min(count["raise pairs"] + count["wrong pairs"], 1)


# ---- in the child


def _run(name: str, types: Sequence[str], most: int) -> Iterator[dict[str, Any]]:
    import torch

    kind, _, own = name.partition(" ")
    for text in types:
        found: dict[str, list[str]] = {"raise": [], "wrong": [], "far": []}
        count, start = 0, time.process_time()
        torch.manual_seed(0)
        try:
            cases = list(_op_cases(own, getattr(torch, text)) if kind == "op" else _module_cases(own, getattr(torch, text), kind == "train"))
        except Exception as error:
            cases = []
            print(f"no samples of {name} {text}: {error}", file=sys.stderr)
        if most and len(cases) > most:
            cases = [cases[round(i * (len(cases) - 1) / max(most - 1, 1))] for i in range(most)]
        for number, case in enumerate(cases):
            verdict = judge(case)
            if verdict is None:
                continue
            count += 1
            if verdict[0] in found:
                found[verdict[0]].append(f"sample {number}: {verdict[1]}")
        if count:
            yield {"name": name, "type": text, "samples": count, "seconds": round(time.process_time() - start, 1), **found}


def _op_cases(name: str, dtype: Any) -> Iterator[Case]:
    from torch.testing._internal.common_methods_invocations import op_db

    (op,) = (op for op in op_db if op.formatted_name == name)
    if dtype in op.supported_dtypes("cpu"):
        for sample in op.sample_inputs("cpu", dtype):
            yield Case(op.op, (sample.input, *sample.args), sample.kwargs)


def _module_cases(name: str, dtype: Any, training: bool) -> Iterator[Case]:
    from torch.testing._internal.common_modules import module_db

    (info,) = (info for info in module_db if info.name == name)
    if dtype not in info.supported_dtypes("cpu"):
        return
    for given in info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=False, training=training):
        if given.forward_input is None:
            continue
        module = info.module_cls(*given.constructor_input.args, **given.constructor_input.kwargs).to(dtype).train(training)
        yield Case(module, tuple(given.forward_input.args), dict(given.forward_input.kwargs))


def judge(case: Case) -> tuple[str, str] | None:
    """(ok | raise | wrong | far, why); None where eager PyTorch itself refuses, or answers differently each time."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    names: set[str] = set()
    random = [False]

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.add(function._schema.name.split("::")[1].strip("_"))
            random[0] |= torch.Tag.nondeterministic_seeded in function.tags
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            mine, (args, kwargs) = copy.deepcopy((case.function, (case.args, case.kwargs)))
            torch.manual_seed(1)
            with Watch():
                want = mine(*args, **kwargs)
            compiled, (args2, kwargs2) = copy.deepcopy((case.function, (case.args, case.kwargs)))
        except Exception:
            return None
        torch._dynamo.reset()
        try:
            torch.manual_seed(1)
            got = torch.compile(_call(compiled), backend="llmchip", dynamic=False)(args2, kwargs2)
        except Exception as error:
            return "raise", f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    contracted = case.kwargs.get("alpha", 1) != 1  # PyTorch multiplies and adds at once
    inexact = random[0] or contracted or any(INEXACT.fullmatch(name) for name in names)
    return compare((got, args2, kwargs2), (want, args, kwargs), inexact, random[0] or any("empty" in name for name in names))


def _call(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda args, kwargs: function(*args, **kwargs)


def compare(got: Any, want: Any, inexact: bool, anything: bool) -> tuple[str, str]:
    """The verdict on results and arguments together. With `anything` (random numbers, memory as it was) only their form counts."""
    import torch
    from torch.utils import _pytree as pytree

    mine, spec = pytree.tree_flatten(got)
    theirs, wanted = pytree.tree_flatten(want)
    if spec != wanted:
        return "wrong", f"structure {spec}, not {wanted}"[:300]
    far = 0.0
    for number, (g, w) in enumerate(zip(mine, theirs, strict=True)):
        if not isinstance(w, torch.Tensor):
            if type(g) is not type(w) or (g != w and g == g and not anything):
                return "wrong", f"leaf {number}: {g!r}, not {w!r}"[:200]
            continue
        if not isinstance(g, torch.Tensor) or g.layout != w.layout or g.shape != w.shape or g.dtype != w.dtype:
            return "wrong", f"leaf {number}: {_form(g)}, not {_form(w)}"
        if w.layout is not torch.strided or w.is_quantized:
            continue
        if g.stride() != w.stride():
            return "wrong", f"leaf {number}: strides {g.stride()}, not {w.stride()} ({_form(w)})"
        if anything or w.numel() == 0 or w.is_complex():
            continue
        bad = _differs(g, w)
        if bad and not inexact:
            return "wrong", f"leaf {number}: {bad} of {w.numel()} elements differ ({_form(w)}): {g.flatten()[:3].tolist()}, not {w.flatten()[:3].tolist()}"
        if bad:
            far = max(far, _distance(g, w))
    if _sharing(mine) != _sharing(theirs):
        return "wrong", f"shares memory as {_sharing(mine)}, not {_sharing(theirs)}"
    return ("far", f"relative distance {far:.3g}") if far > FAR else ("ok", "")


def _form(x: Any) -> str:
    return f"{x.dtype}{list(x.shape)} {x.layout}" if hasattr(x, "dtype") else type(x).__name__


def _differs(g: Any, w: Any) -> int:
    import torch

    if not w.is_floating_point():
        return int((g != w).sum())
    view = {2: torch.int16, 4: torch.int32, 8: torch.int64}[w.element_size()]
    return int(((g.contiguous().view(view) != w.contiguous().view(view)) & ~(g.isnan() & w.isnan()) & ~((g == 0) & (w == 0))).sum())


def _distance(g: Any, w: Any) -> float:
    g, w = g.double(), w.double()
    if bool((g.isnan() != w.isnan()).any()):
        return float("inf")
    fine = g.isfinite() & w.isfinite()
    return float((g - w)[fine].norm() / w[fine].norm().clamp(min=1e-9))


def _sharing(leaves: Sequence[Any]) -> list[tuple[int, int]]:
    """For each tensor the first leaf whose memory it shares, and its offset there."""
    import torch

    first: dict[int, int] = {}
    found = []
    for number, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided and leaf.numel():
            address = leaf.untyped_storage().data_ptr()
            found.append((first.setdefault(address, number), leaf.storage_offset()))
    return found


if __name__ == "__main__":
    sys.exit(main())
