"""`make support-core`: which of PyTorch's core ATen operators run on the chip in all of PyTorch's own samples.

The core operators are those whose overloads have `torch.Tag.core`; their samples are those of the entries of `op_db`
that have their name. A sample counts as on the chip if nothing of it falls back and what comes back is as eager PyTorch
gives it (`tools.support.oracle` says in what). Samples with types that the chip does not have (float64) are not asked.

    python -m tools.support_core                              every operator, all samples
    python -m tools.support_core --samples 4 --only '^a'      at most four samples of each entry
    python -m tools.support_core --table benchmarks/results/support-core.md
"""

import argparse
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from tools.support.cases import Case

T = TypeVar("T")
INTEGERS = ("int64", "bool")
TOGETHER = 8  # samples that are compiled as one function
PLACELESS: Mapping[str, str] = {
    **dict.fromkeys(("empty", "empty_strided", "resize_"), "gives memory as it was"),
    **dict.fromkeys(("rand", "randn", "randperm", "native_dropout"), "draws random numbers"),
    **dict.fromkeys(("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "sym_is_contiguous"), "is no tensor"),
    "_local_scalar_dense": "is no tensor",
    "nonzero": "has a result whose size depends on data",
    **dict.fromkeys(
        (
            "avg_pool2d_backward", "convolution_backward", "embedding_dense_backward", "native_group_norm_backward",
            "native_layer_norm_backward", "max_pool2d_with_indices_backward", "_adaptive_avg_pool2d_backward",
        ),
        "belongs to training, which the chip does not do",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Found:
    """Of the samples of one operator: how many there are, how many run on the chip, and why others do not, the most
    frequent reason first."""

    name: str
    samples: int
    chip: int
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> str:
        return "all" if self.chip == self.samples else "some" if self.chip else "no"


def core_operators() -> dict[str, list[str]]:
    """The core operators, and which overloads of each are."""
    found: dict[str, list[str]] = {}
    for schema in torch._C._jit_get_all_schemas():
        name = schema.name.removeprefix("aten::")
        packet = getattr(torch.ops.aten, name, None) if name != schema.name else None
        overload = getattr(packet, schema.overload_name or "default", None)
        if overload is not None and torch.Tag.core in overload.tags:
            found.setdefault(name, []).append(schema.overload_name or "default")
    return dict(sorted(found.items()))


def entries() -> dict[str, list[str]]:
    """The entries of `op_db` of each core operator: those with its name, be it that of a function of torch.nn or an
    alias."""
    from torch.testing._internal.common_methods_invocations import op_db

    named: dict[str, list[str]] = {}
    for op in op_db:
        for name in {op.name.removeprefix("nn.functional."), op.aten_name, *(alias.name for alias in op.aliases)}:
            named.setdefault(name, []).append(op.formatted_name)
    return {name: named.get(name) or named.get(name.removeprefix("_"), []) for name in core_operators()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.support_core", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=0, help="at most so many of each entry (default: all)")
    parser.add_argument("--only", default="", help="operators that match this regular expression")
    parser.add_argument(
        "--types", default="", help="of the samples (default: float32; of integers and truths int64, bool)"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--table", type=Path, help="where the table is written")
    given = parser.parse_args()
    tested = {
        name: of for name, of in entries().items() if of and name not in PLACELESS and re.search(given.only, name)
    }
    run = partial(examine, most=given.samples, types=tuple(given.types.split(",")) if given.types else ())
    os.environ.pop("LLMCHIP_STRICT", None)
    os.environ["LLMCHIP_CACHE"] = "off"
    with ProcessPoolExecutor(given.workers, get_context("spawn"), _start) as pool:
        rows = []
        for row in pool.map(run, tested, tested.values()):
            rows.append(row)
            print(f"{row.chip:4} of {row.samples:4} {row.name} {'; '.join(row.reasons)[:300]}", flush=True)
    if given.table:
        given.table.write_text(table(rows), encoding="utf-8")
    print(_summary(rows))
    return 0


def _start() -> None:
    """Once in each child."""
    from torch._dynamo import guards

    from tools.support.oracle import count_calls

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    # It flushes the processor's caches to measure itself.
    patch.object(guards, "profile_guard_manager", lambda *_: 0.0).start()
    count_calls()


def examine(name: str, of: Sequence[str], most: int, types: Sequence[str] = ()) -> Found:
    """Judge the samples of these entries of `op_db`."""
    from tools.support.oracle import judge

    samples, chip, reasons = 0, 0, Counter[str]()
    for few in (group for entry in of for group in _groups(entry, most, types)):
        for case, verdict in zip(few, judge(few, TOGETHER), strict=True):
            if verdict is not None and verdict.back and len(few) > 1:
                (verdict,) = judge([case])  # of several it is not known which
            if verdict is None:
                continue
            samples += 1
            fine = verdict.outcome in ("ok", "far") and not verdict.back
            chip += fine
            if not fine:
                reasons[verdict.reason or f"{verdict.outcome}: {verdict.why}"] += 1
    return Found(name, samples, chip, tuple(reason for reason, _ in reasons.most_common()))


def _groups(entry: str, most: int, types: Sequence[str]) -> Iterator[list["Case"]]:
    """Samples of an entry that are compiled together. Without `types` those of float32, or of the others where there is
    none."""
    from tools.support.cases import cases

    def of(dtype: str) -> list["Case"]:
        torch.manual_seed(0)
        return spread([case for case in cases(f"op {entry}", getattr(torch, dtype)) if _has_types(case)], most)

    found = [of(dtype) for dtype in types] if types else [of("float32")] if of("float32") else [of(d) for d in INTEGERS]
    for samples in found:
        yield from (samples[first : first + TOGETHER] for first in range(0, len(samples), TOGETHER))


def _has_types(case: "Case") -> bool:
    """Whether the chip has the type of every operand, and every type that is asked for."""
    from compiler.types import STORAGE

    kinds = (leaf.dtype if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves((case.args, case.kwargs)))
    return all(kind in STORAGE for kind in kinds if isinstance(kind, torch.dtype))


def spread(samples: Sequence[T], most: int) -> list[T]:
    """At most so many of them, from the first to the last; 0: all."""
    if not most or len(samples) <= most:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / max(most - 1, 1))] for i in range(most)]


def table(rows: Sequence[Found]) -> str:
    """The page: what is on the chip, in part, not at all, and what is not asked."""
    lines = [
        "Written by `make support-core`: PyTorch's core ATen operators (`torch.Tag.core`) on the samples that PyTorch's own",
        "tests have of them (`op_db`; float32, or int64 and bool where an operator is for these), through torch.compile. A",
        "sample is on the chip if nothing of it falls back to PyTorch, and its result is as eager PyTorch gives it. Samples",
        "with types that the chip does not have (float64) are not asked.",
        "",
        _summary(rows),
        "",
        "| operator | on the chip | samples | why not, the most frequent reason |",
        "|---|---|---:|---|",
    ]
    for row in rows:
        reason = row.reasons[0].replace("|", "\\|").replace("\n", " ")[:160] if row.reasons else ""
        lines.append(f"| {row.name} | {row.verdict} | {row.chip} of {row.samples} | {reason} |")
    known = entries()
    untested = [name for name, of in known.items() if not of and name not in PLACELESS]
    lines += ["", f"No entry of their own in `op_db`: {', '.join(untested)}.", "", "No place on a chip:", ""]
    for why in dict.fromkeys(PLACELESS.values()):
        lines.append(f"- {', '.join(name for name in known if PLACELESS.get(name) == why)}: {why}")
    return "\n".join([*lines, ""])


def _summary(rows: Sequence[Found]) -> str:
    count = Counter(row.verdict for row in rows)
    each = ", ".join(f"{count[verdict]} in {verdict}" for verdict in ("all", "some", "no"))
    return f"Of {len(rows)} operators, {each} samples."


if __name__ == "__main__":
    sys.exit(main())
