"""Is the binary right? Run the image's own code and compare every node that it names, bit for bit, with PyTorch.

The reference is the frozen graph, run eagerly. The two go side by side: whenever an instruction of the program
completes part of a node's value (a tap of the debug map), the reference is advanced until it has that node, and the
block is compared as integers, on the spot. So the first difference found is the first in execution order, and only
values that are still being compared are held. There is no tolerance anywhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import Tensor

from isa.errors import InputError
from isa.image.image import Image
from isa.image.records import DebugNode, TensorSpec
from lint.analyse import check
from runtime.device.arrays import Array
from runtime.device.executable import Executable
from runtime.pytorch.compilation import Known
from runtime.pytorch.tensors import to_array, to_tensor
from runtime.tables import frame, html_table
from runtime.verify.compare import Comparer
from runtime.verify.reference import LazyReference

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Verification:
    """What was compared and what was found; the attributes are the keys of `llmcc verify --json`.

    `graph_nodes` = `nodes` (compared) + the `skipped` ones. `findings` are faults that the static checker sees in the
    program (a race, a read of memory never written): then the bits depend on the chip's timing, and it is not bit-exact
    whatever this run gave. `float` is the distance to the original model: another figure, never part of `bit_exact`.
    """

    bit_exact: bool
    outputs: int
    graph_nodes: int
    nodes: int
    skipped: list[dict[str, str]] = field(default_factory=list)
    mismatched_nodes: int = 0
    mismatched_elements: int = 0
    first_divergence: dict[str, Any] | None = None
    float: dict[str, Any] | None = None
    findings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The attributes as a dictionary."""
        return asdict(self)

    def __bool__(self) -> bool:
        return self.bit_exact

    def __repr__(self) -> str:
        found = "bit-exact" if self.bit_exact else f"{self.mismatched_elements:,} values differ"
        first = f", first in {self.first_divergence['node']}" if self.first_divergence else ""
        findings = f", {len(self.findings)} findings" if self.findings else ""
        cosine = (self.float or {}).get("cosine")
        distance = f", cosine to the float model {cosine:.6f}" if cosine is not None else ""
        return f"Verification({found}: {self.nodes} of {self.graph_nodes} nodes compared{first}{findings}{distance})"

    def _repr_html_(self) -> str:
        """What was compared and found."""
        rows = [(name, value) for name, value in self.as_dict().items() if name != "skipped"]
        return f"<p>{escape(repr(self))}</p>" + html_table(("", ""), rows)

    def to_json(self) -> str:
        """The attributes as an object; docs/schemas/verification.json describes it."""
        return msgspec.json.encode(self).decode()

    def to_pandas(self) -> "pandas.DataFrame":
        """One row, so that those of several programs can be put together. Raises InputError without pandas."""
        return frame([self.as_dict()])


def verify_image(
    image: Image,
    compiled: Known,
    inputs: Mapping[str, Array | Tensor],
    expected: Sequence[Tensor] | None = None,
    max_instructions: int | None = None,
) -> Verification:
    """Compare the image's code with the graph that `compiled` froze. `expected`: the original model's outputs, for
    `float`.

    The launch ends with OverBudget after `max_instructions`.

    Raises Trap if the program does, InputError for inputs that do not fit or an image of another model.
    """
    arrays = {name: to_array(value) if isinstance(value, Tensor) else value for name, value in inputs.items()}
    lowered, entry = compiled.lowered, image.entry()
    _check_same_graph(image, compiled)
    executable = Executable(image, max_instructions=max_instructions)
    tensors = [
        to_tensor(np.asarray(arrays[spec.name], order="C"), spec.dtype) if spec.name in arrays else None
        for spec in entry.inputs
    ]
    reference = LazyReference(lowered.main, (*tensors, *lowered.pack_weights()))
    comparer = Comparer(image, reference)
    results = executable.run(arrays, probe=comparer.probe)
    wanted = [to_array(value) for value in reference.outputs()]
    for spec, value in zip(entry.outputs, wanted, strict=True):
        comparer.compare_output(spec, executable.tensor(spec), value)
    distance = _distance(entry.outputs, results, expected) if expected is not None else None
    return _report(image, compiled, comparer, distance)


def _check_same_graph(image: Image, compiled: Known) -> None:
    """The image and the lowering must speak of the same nodes and the same interface."""
    entry, lowered = image.entry(), compiled.lowered
    own = [(spec.name, spec.shape) for spec in (*entry.inputs, *entry.outputs)]
    fresh = [(info.name, info.shape) for info in (*lowered.inputs, *lowered.outputs)]
    if own != fresh:
        raise InputError(
            f"the image has the interface {own}, the model {fresh}",
            hint="verify with the model and shapes that it was compiled from",
        )
    shapes = {
        node.name: node.meta["val"].shape
        for node in lowered.main.graph.nodes
        if isinstance(node.meta.get("val"), Tensor)
    }
    for node in image.debug.nodes:
        if node.status == "materialized" and tuple(shapes.get(node.name, ())) != node.shape:
            raise InputError(
                f"the image computes a node '{node.name}' {list(node.shape)}, which the model does not have",
                hint="compile it again",
            )


def _report(image: Image, compiled: Known, comparer: Comparer, distance: dict[str, Any] | None) -> Verification:
    names = [node.name for node in compiled.lowered.main.graph.nodes if node.op == "call_function"]
    records = {node.name: node for node in image.debug.nodes}
    comparer.finish()
    findings = [str(finding) for finding in check(image)]
    skipped = [{"node": name, "reason": _reason(records.get(name))} for name in names if name not in comparer.compared]
    return Verification(
        bit_exact=not comparer.differing and not findings,
        outputs=len(image.entry().outputs),
        graph_nodes=len(names),
        nodes=len(names) - len(skipped),
        skipped=skipped,
        mismatched_nodes=len(comparer.differing),
        mismatched_elements=sum(comparer.differing.values()),
        first_divergence=comparer.first,
        float=distance,
        findings=findings,
    )


def _reason(node: DebugNode | None) -> str:
    if node is None:
        return "not named by the image"
    return f"{node.status}: {node.reason}" if node.reason else node.status


def _distance(specs: Sequence[TensorSpec], results: Mapping[str, Array], expected: Sequence[Tensor]) -> dict[str, Any]:
    """Worst cosine and largest difference over the float outputs."""
    cosines, largest = [], []
    for spec, wanted in zip(specs, expected, strict=False):
        if not spec.storage.is_float or not spec.elements:
            continue
        ours = to_tensor(results[spec.name], spec.dtype).to(torch.float64).reshape(-1)
        theirs = wanted.detach().to(torch.float64).reshape(-1)
        norms = float(ours.norm() * theirs.norm())
        cosines.append(float(ours @ theirs) / norms if norms else float(bool((ours == theirs).all())))
        largest.append(float((ours - theirs).abs().max()))
    return {"cosine": min(cosines), "max_abs": max(largest)} if cosines else {"cosine": None, "max_abs": None}
