"""Lower a captured model to the frozen graph of chip operations, and the graph that packs its constants.

reference(inputs) = main(*inputs, *pack(*weights)), run eagerly by PyTorch.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, fx

from compiler import extensions
from compiler.frontend.calibration import schemes_of
from compiler.frontend.capture import Captured, TensorInfo
from compiler.frontend.checks import check_graph
from compiler.graph.fx_copy import as_written, copied
from compiler.graph.garbage import collected_seldom
from compiler.graph.manager import Pass, PassManager, Timing
from compiler.options import CHOICES, OPTIMISATIONS, Options
from compiler.packing import Bytes, Packing, Store
from compiler.passes.canonical_matmul import CanonicalMatmul
from compiler.passes.canonicalize import Canonicalize, ShareEqual
from compiler.passes.channels_last import ChannelsLast
from compiler.passes.decompose import Decompose
from compiler.passes.empty import FoldEmpty
from compiler.passes.quantize import Quantize
from compiler.passes.recognise_activations import RecogniseActivations
from compiler.passes.recognise_attention import RecogniseAttention
from compiler.passes.recognise_experts import RecogniseExperts
from compiler.passes.recognise_norm import RecogniseNorm
from compiler.passes.recurrent import Recurrent
from compiler.passes.resize import Resize
from compiler.passes.select import Select
from compiler.passes.split import freeze
from compiler.passes.windows import Windows
from compiler.repeat.by_layers import by_layers
from isa.errors import CompileError


@dataclass(frozen=True)
class Lowered:
    """A model as the chip computes it.

    `main` takes `inputs`, then `constants`; `pack` takes the weights of `captured` and gives the constants.
    """

    main: fx.GraphModule
    pack: fx.GraphModule
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    constants: tuple[TensorInfo, ...]
    captured: Captured
    timings: tuple[Timing, ...]

    def pack_weights(self, tensors: Mapping[str, Tensor] | None = None) -> tuple[Tensor, ...]:
        """The constants for these weights (by name; default: those of the captured model)."""
        found: dict[int, Tensor] = {}

        def keep(number: int, value: Tensor | Bytes) -> None:
            assert isinstance(value, Tensor)  # bytes are of constants that are known already
            found[number] = value

        self.pack_into(keep, tensors)
        return tuple(found[number] for number in range(len(found)))

    def pack_into(
        self,
        store: Store,
        tensors: Mapping[str, Tensor] | None = None,
        known: Mapping[int, Bytes] | None = None,
        only: Collection[int] | None = None,
    ) -> None:
        """Give each constant (or `only` those with these numbers) to `store`; from several threads. Those that are
        `known` are not computed."""
        for number, data in (known or {}).items():
            store(number, data)
        if known:
            only = [number for number in only or range(len(self.constants)) if number not in known]
        self.packing.run(self.captured.tensors if tensors is None else tensors, store, only)

    @cached_property
    def packing(self) -> Packing:
        return Packing(self.pack.graph, self.captured.weights)

    def run(self, inputs: Sequence[Tensor], constants: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What PyTorch computes of the frozen graph: the result that the emulator must equal."""
        with as_written():
            result: tuple[Tensor, ...] = self.main(*inputs, *constants)
        return result


def pipeline(options: Options, schemes: Mapping[str, str] | None = None) -> list[Pass]:
    """The passes in order, for a model of which some operations, by name, have `schemes` of their own. Those named by
    `options.disable` are left out. Raises CompileError for a name that no pass has."""
    extensions.install()
    steps: list[Pass] = [
        FoldEmpty(),  # first, because no other pass thinks of tensors without elements
        Decompose(),  # before the others, so that what it makes goes through all of them
        Canonicalize(),  # early, so that every later pass knows one form of each operation
        Recurrent(),  # makes products and functions of layers that go step by step
        Windows(),  # makes products and slices of what looks at several places
        Resize(),  # likewise
        RecogniseExperts(),  # before products are canonical, of which it makes some
        CanonicalMatmul(),  # needs canonical views, to see which operand of a product is a weight
        Canonicalize(),  # views that decomposition made
        RecogniseActivations(),  # needs canonical arithmetic
        RecogniseAttention(),  # needs products as matmul, before they are quantized one by one
        Quantize(options.quant_config, schemes or {}),
        Select(),  # after attention is recognised: it takes softmax's place
        Canonicalize(),  # operands that quantize and select broadcast by hand
        ChannelsLast(),  # needs operations as the chip has them, and quantization, which takes rows of channels
        RecogniseNorm(),  # needs reductions as the chip has them
        *extensions.passes(),  # fusions into instructions from outside
        ShareEqual(),  # one quantization for q, k and v
    ]
    names = {step.name for step in steps} | CHOICES.keys() | set(OPTIMISATIONS)
    for name in options.disable:
        if name not in names:
            raise CompileError(f"there is no pass '{name}'", hint=f"the passes are {', '.join(sorted(names))}")
    return [step for step in steps if step.name not in options.disable]


@collected_seldom()
def lower(
    captured: Captured,
    options: Options | None = None,
    *,
    print_after: Collection[str] = (),
    stop_after: str | None = None,
    dump_dir: Path | None = None,
) -> Lowered:
    """Run the graph passes and freeze the result."""
    options = options or Options()
    schemes = schemes_of(captured.gm.graph, options.quant_config)
    manager = PassManager(pipeline(options, schemes), print_after, stop_after, dump_dir)
    check_graph(captured.gm.graph)
    shown = print_after or stop_after or dump_dir
    halves = None if shown else by_layers(captured.gm, lambda few: freeze(manager.run(few)), schemes)
    if halves is None:
        manager.timings.clear()
        halves = freeze(manager.run(copied(captured.gm, "Lowering")), whole=stop_after is None)
    holders = [node for node in halves.main.graph.nodes if node.op == "placeholder" and node.meta.get("weight")]
    constants = tuple(TensorInfo(node.name, tuple(node.meta["val"].shape), node.meta["val"].dtype) for node in holders)
    return Lowered(
        halves.main, halves.pack, captured.inputs, captured.outputs, constants, captured, tuple(manager.timings)
    )
