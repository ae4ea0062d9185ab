"""Capture: a module or exported program becomes one functional FX graph with everything named.

The graph's placeholders are the user's tensors, then the weights (parameters, buffers, lifted constants).
`run_decompositions` only removes mutation: linear, attention, layer_norm, gelu and softmax stay whole.
"""

import copy
import inspect
import re
import traceback
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import ExportedProgram
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.modules import rnn as layers
from torch.nn.utils import rnn as packing
from torch.utils import _pytree as pytree

from compiler.frontend.aliases import settle_aliases
from compiler.frontend.caches import cache_outputs, read_caches, settle_caches
from compiler.frontend.checks import check_tensor
from compiler.frontend.composites import remembered
from compiler.frontend.experts import experts
from compiler.frontend.leftovers import forgotten
from compiler.frontend.names import quoted
from compiler.frontend.torchao import adopt
from compiler.graph.arguments import tensors
from compiler.graph.fx_copy import graph_module
from compiler.graph.source import source_line
from compiler.tested import warn_untested
from isa.errors import CompileError, InputError, UnsupportedError

warn_untested()
CHAINED = "PyTorch's own report is the cause of this error; --traceback shows it"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A named input or output of the model, as the user sees it."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor that belongs to the model. `kind`: param, buffer, constant (written in the code itself), or state (a
    buffer that the model changes in a way that the chip can: a cache of keys or values)."""

    name: str
    placeholder: str
    kind: str


@dataclass(frozen=True, slots=True)
class Leaf:
    """Stands for tensor number `index` among flattened arguments or results."""

    index: int


@dataclass(frozen=True)
class Captured:
    """A model as a graph, its weights beside it, and how to call it.

    `gm` has the user's tensors as placeholders (in the order of `inputs`), then the weights (in the order of
    `weights`). `arguments` maps each argument's name to its value, a pytree with a `Leaf` for every tensor; `result` is
    the model's result with a `Leaf` for every tensor. `changed` names placeholders that the model changes in place,
    with the number of the output that is their new value. `signature` is forward's, where it is known: the program is
    called as the model is.
    """

    gm: fx.GraphModule
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    weights: tuple[Weight, ...]
    tensors: Mapping[str, Tensor]
    arguments: Mapping[str, object]
    result: pytree.PyTree
    changed: tuple[tuple[str, int], ...] = ()
    signature: inspect.Signature | None = None

    def flatten(self, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None) -> tuple[Tensor, ...]:
        """The caller's arguments, passed by position or by name as to the model itself, as the graph's inputs. Raises
        InputError for a name that the model does not have, and for inputs of another form."""
        given = self._named(args, kwargs or {})
        tensors: dict[int, Tensor] = {}
        for name, template in self.arguments.items():
            _bind(name, template, given.pop(name) if name in given else self._left_out(name, template), tensors)
        for name, value in given.items():
            default = self._default(name)
            if not (
                value is None
                or value is default
                or (type(value) is type(default) and not isinstance(value, Tensor) and value == default)
            ):
                raise InputError(
                    f"unknown input '{name}'", hint=f"the model was compiled with {', '.join(self.arguments)}"
                )
        return tuple(tensors[index] for index in range(len(self.inputs)))

    def modules(self) -> dict[str, str]:
        """By the names of the graph's nodes the module of the model that they were called in, `encoder.layer.0`; of
        weights the module that has them. Those of which nothing is known are left out."""
        called = {node.name: str(node.meta["module"]) for node in self.gm.graph.nodes if node.meta.get("module")}
        return called | {weight.placeholder: weight.name.rpartition(".")[0] for weight in self.weights}

    def _named(self, args: Sequence[object], kwargs: Mapping[str, object]) -> dict[str, object]:
        """The caller's arguments by name, as forward would bind them."""
        if self.signature is None:
            names = list(self.arguments)
            if len(args) > len(names):
                raise InputError(
                    f"{len(args)} positional arguments for {len(names)} inputs",
                    hint=f"the inputs are {', '.join(names)}",
                )
            _once(names[: len(args)], kwargs)
            return {**dict(zip(names, args, strict=False)), **kwargs}
        kinds = [p.kind for p in self.signature.parameters.values()]
        taken = {
            n: v for n, v in kwargs.items() if n in self.signature.parameters or inspect.Parameter.VAR_KEYWORD in kinds
        }
        by_position = [
            n for n, p in self.signature.parameters.items() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        _once(by_position[: len(args)], kwargs)
        try:
            bound = named_arguments(self.signature.bind_partial(*args, **taken))
        except TypeError as error:
            raise InputError(str(error), hint=f"forward takes {', '.join(self.signature.parameters)}") from None
        return {**bound, **{name: value for name, value in kwargs.items() if name not in taken}}

    def _default(self, name: str) -> object:
        """What forward takes for an argument that is left out; `empty` if it must be given."""
        parameter = self.signature.parameters.get(name) if self.signature else None
        return inspect.Parameter.empty if parameter is None else parameter.default

    def _left_out(self, name: str, template: object) -> object:
        parameter = self.signature.parameters.get(name) if self.signature else None
        if parameter is None or parameter.kind is parameter.VAR_POSITIONAL:
            return template  # a tensor in it is missing; any other value is what the model was compiled with
        if any(isinstance(leaf, Leaf) for leaf in pytree.tree_leaves(template)) or parameter.default is parameter.empty:
            raise InputError(
                f"input '{name}' is missing", hint=f"the model was compiled with {', '.join(self.arguments)}"
            )
        return parameter.default

    def unflatten(self, outputs: Sequence[object]) -> pytree.PyTree:
        """The graph's outputs in the structure that the model returns."""
        return pytree.tree_map(lambda leaf: outputs[leaf.index] if isinstance(leaf, Leaf) else leaf, self.result)


def named_arguments(bound: inspect.BoundArguments) -> dict[str, object]:
    """Bound arguments by name, those that a ** parameter collects among the others."""
    named: dict[str, object] = {}
    for name, value in bound.arguments.items():
        collects = bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        named.update(value if collects else {name: value})
    return named


def _once(positional: Sequence[str], kwargs: Mapping[str, object]) -> None:
    for name in positional:
        if name in kwargs:
            raise InputError(f"input '{name}' is given twice, by position and by name")


def _bind(name: str, template: object, value: object, tensors: dict[int, Tensor]) -> None:
    """Match one argument with its template and collect its tensors."""
    expected, spec = pytree.tree_flatten(template)
    leaves, given_spec = pytree.tree_flatten(value)
    if spec != given_spec:
        raise InputError(f"input '{name}' has another structure than the model was compiled with")
    for want, got in zip(expected, leaves, strict=True):
        if not isinstance(want, Leaf):
            if want is not got and (isinstance(got, Tensor) or want != got):
                raise InputError(f"input '{name}' is {_shown(got)}, the model was compiled with {want!r}")
        elif isinstance(got, Tensor):
            tensors[want.index] = got
        else:
            raise InputError(
                f"input '{name}' is missing" if isinstance(got, Leaf) else f"input '{name}' is not a tensor"
            )


def _shown(value: object) -> str:
    return "a tensor" if isinstance(value, Tensor) else repr(value)


def capture(
    module: torch.nn.Module, args: tuple[object, ...] = (), kwargs: Mapping[str, object] | None = None
) -> Captured:
    """Export `module` with these example inputs. Raises CompileError for a model in train mode or one that torch.export
    cannot capture."""
    if module.training and not _exported(module):
        raise CompileError("the model is in train mode", type(module).__name__, "call model.eval() first")
    for leaf in pytree.tree_leaves((args, dict(kwargs or {}))):
        if isinstance(leaf, Tensor):
            check_tensor("an input", leaf)
    module = adopt(module)
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        check_tensor(f"weight '{name}'", tensor)
    signature = _plain(inspect.signature(module.forward))
    with forgotten():
        with _left_as_it_was(module), experts(module):
            exported = export(module, args, kwargs)
        return from_exported(exported, signature)


def _plain(signature: inspect.Signature) -> inspect.Signature:
    """Names, kinds and defaults: annotations may be anything, and need not pickle."""
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return inspect.Signature(parameters)


def _exported(module: torch.nn.Module) -> bool:
    """Whether this is `ExportedProgram.module()`: its mode was decided when it was exported, and its flag says
    nothing."""
    return isinstance(module, fx.GraphModule) and any(type(child).__name__ == "GuardsFn" for child in module.children())


@contextmanager
def _left_as_it_was(module: torch.nn.Module) -> Iterator[None]:
    """Attributes that forward sets (`self.last = y`) are fake tensors after a trace: these get back what they had."""
    before = [
        (m.__dict__, dict(m.__dict__), {n: copy.copy(v) for n, v in m.__dict__.items() if type(v) in (dict, list)})
        for m in module.modules()
    ]
    try:
        yield
    finally:
        for attributes, old, contents in before:
            for name in [name for name, value in attributes.items() if _holds_fakes(value)]:
                if name not in old:
                    del attributes[name]
                else:
                    attributes[name] = old[name]
                    _refill(old[name], contents.get(name))


def _holds_fakes(value: object) -> bool:
    return any(isinstance(leaf, FakeTensor) for leaf in pytree.tree_leaves(value))


def _refill(container: object, content: object) -> None:
    """What a list or dictionary held before it was added to."""
    if isinstance(container, list) and isinstance(content, list):
        container[:] = content
    elif isinstance(container, dict) and isinstance(content, dict):
        container.clear()
        container.update(content)


def export(
    module: torch.nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object] | None = None
) -> ExportedProgram:
    """torch.export. Raises CompileError, one sentence, for what it cannot capture."""
    try:
        with torch.no_grad(), warnings.catch_warnings(), fixed_sizes(type(module).__name__):
            warnings.simplefilter("ignore")
            return torch.export.export(module, args, kwargs=dict(kwargs or {}), strict=False)
    except UnsupportedError:
        raise
    except Exception as error:
        _check_positions(module, (args, kwargs), error)
        _check_packed(module, error)
        _check_cache(module, error)
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompileError(
            f"torch.export cannot capture this model: {first}", type(module).__name__, CHAINED
        ) from error


@contextmanager
def fixed_sizes(where: str = "") -> Iterator[None]:
    """Raises UnsupportedError for what PyTorch itself cannot decide without the data: export hands out such graphs, and
    Dynamo with fullgraph=True."""
    try:
        yield
    except GuardOnDataDependentSymNode as error:
        what = "a size, or which way the model goes, depends on data"
        raise UnsupportedError(what, where, CHAINED) from error


def _check_positions(module: torch.nn.Module, given: object, error: Exception) -> None:
    """The commonest reason why a transformer cannot be traced, in its user's words."""
    limit = getattr(getattr(module, "config", None), "max_position_embeddings", None)
    ids = [
        leaf
        for leaf in pytree.tree_leaves(given)
        if isinstance(leaf, Tensor) and leaf.dim() == 2 and not leaf.is_floating_point()
    ]
    longest = max((leaf.shape[1] for leaf in ids), default=0)
    if isinstance(limit, int) and 0 < limit < longest:
        what = f"the sequence has {longest} tokens, the model has {limit} positions"
        raise InputError(what, type(module).__name__, f"give at most {limit} tokens") from error


def _check_packed(module: torch.nn.Module, error: Exception) -> None:
    """A trace that fails where sequences are packed, or in a layer that takes them: their lengths must be numbers."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if any(
        frame.f_code.co_filename in (packing.__file__, layers.__file__)
        and frame.f_locals.get("batch_sizes", frame.f_locals.get("lengths")) is not None
        for frame in frames
    ):
        raise UnsupportedError(
            "a packed sequence has sizes that depend on data",
            type(module).__name__,
            "give the recurrent layer the padded batch, and use what is within each length",
        ) from error


def _check_cache(module: torch.nn.Module, error: Exception) -> None:
    """A model of transformers that would return its cache, which is no tensor."""
    if "transformers.cache_utils" in str(error):
        raise CompileError(
            "the model returns a cache, which torch.export cannot capture",
            type(module).__name__,
            "pass use_cache=False, or set it in the model's config",
        ) from error


def from_exported(
    program: ExportedProgram, signature: inspect.Signature | None = None, changing: bool = False
) -> Captured:
    """The captured form of an exported program (a .pt2 file, for example); `signature` is the model's own.

    Only with `changing` may it change its inputs: the caller then sees to it that they get their new values.
    """
    with torch.no_grad(), warnings.catch_warnings(), fixed_sizes():
        warnings.simplefilter("ignore")
        _settle_checks(program.graph_module)
        table = settle_aliases(program.graph_module)
        with remembered(), quoted():
            program = program.run_decompositions(table)
        _settle_numbers(program.graph_module)
    caches = cache_outputs(program)
    changed = _changed(program, changing, caches)
    weights, tensors = _weights(program, caches)
    graph, users = _rebuild(program, {weight.placeholder for weight in weights}, caches)
    _mark_state(graph, weights)
    _mark_numbers(graph, weights, tensors)
    gm = graph_module(graph, "Captured", program.graph_module)
    inputs = tuple(_info(name, node.meta["val"]) for name, node in users.items())
    arguments, signature = _arguments(program, inputs, signature)
    outputs, result = _results(program, gm, caches)
    return Captured(gm, inputs, outputs, weights, tensors, arguments, result, changed, signature)


def _settle_numbers(gm: fx.GraphModule) -> None:
    """What `vmap` leaves of a number, a copy of it of another type, becomes a tensor of that type without
    dimensions."""
    for node in gm.graph.find_nodes(op="call_function", target=torch.ops.aten._to_copy.default):
        if not isinstance(node.args[0], fx.Node):
            node.target, node.args, node.kwargs = (
                torch.ops.aten.full.default,
                ([], node.args[0]),
                {"dtype": node.kwargs.get("dtype")},
            )


_METADATA = torch.ops.aten._assert_tensor_metadata.default


def _settle_checks(gm: fx.GraphModule) -> None:
    """Drop checks of types and sizes, which are fixed here (what export writes down of types in an autocast region is
    what they were before the casts); and keep a bare assertion, which PyTorch would drop, by giving it the message that
    it has in eager mode."""
    for module in gm.modules():
        if isinstance(module, fx.GraphModule):
            for node in module.graph.find_nodes(op="call_function", target=_METADATA):
                module.graph.erase_node(node)
            for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_async.default):
                node.target, node.args = (
                    torch.ops.aten._assert_async.msg,
                    (node.args[0], "Expected Tensor with single nonzero value, but got zero"),
                )
            module.recompile()


_CHANGES = (OutputKind.BUFFER_MUTATION, OutputKind.PARAMETER_MUTATION, OutputKind.USER_INPUT_MUTATION)


def _changed(program: ExportedProgram, changing: bool, caches: Mapping[int, str]) -> tuple[tuple[str, int], ...]:
    """Inputs that are changed in place, and which output is their new value."""
    found = []
    tensors = [
        spec
        for number, spec in enumerate(program.graph_signature.output_specs)
        if number not in caches and not isinstance(spec.arg, ConstantArgument)
    ]
    for number, spec in enumerate(tensors):
        if spec.kind in _CHANGES:
            if not changing or spec.kind is not OutputKind.USER_INPUT_MUTATION:
                raise UnsupportedError(
                    f"the model changes '{spec.target}' in place", hint="state on the device is not supported yet"
                )
            found.append((str(spec.target), number))
        elif spec.kind is not OutputKind.USER_OUTPUT:
            raise UnsupportedError(f"the model gives a result of kind {spec.kind.name}", str(spec.target or ""))
    return tuple(found)


STATE = "state"
_KINDS = {InputKind.PARAMETER: "param", InputKind.BUFFER: "buffer", InputKind.CONSTANT_TENSOR: "constant"}


def _weights(program: ExportedProgram, caches: Mapping[int, str]) -> tuple[tuple[Weight, ...], dict[str, Tensor]]:
    weights, tensors = [], {}
    state = set(caches.values()) | read_caches(program)
    for spec in program.graph_signature.input_specs:
        if spec.kind in _KINDS:
            assert spec.target is not None
            kind = STATE if spec.target in state else _KINDS[spec.kind]
            weights.append(Weight(spec.target, spec.arg.name, kind))
            value = program.state_dict.get(spec.target, program.constants.get(spec.target))
            assert isinstance(value, Tensor), f"no value for {spec.target}"
            tensors[spec.target] = value.detach()
        elif spec.kind is not InputKind.USER_INPUT:
            raise UnsupportedError(f"the model needs an input of kind {spec.kind.name}", spec.arg.name)
    return tuple(weights), tensors


def _rebuild(
    program: ExportedProgram, weights: set[str], caches: Mapping[int, str]
) -> tuple[fx.Graph, dict[str, fx.Node]]:
    """A copy of the graph with the user's tensors first, then the weights, and our metadata on every node."""
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    holders = [node for node in program.graph.nodes if node.op == "placeholder"]
    users = [node for node in holders if node.name not in weights and isinstance(node.meta.get("val"), Tensor)]
    for node in (*users, *(node for node in holders if node.name in weights)):
        remap[node] = graph.node_copy(node)
        remap[node].meta["weight"] = node.name in weights
    for node in program.graph.nodes:
        if node.op == "output":
            given = (leaf for number, leaf in enumerate(node.args[0]) if number not in caches)
            graph.output(tuple(remap[leaf] for leaf in given if isinstance(leaf, fx.Node)))
        elif node.op != "placeholder" and node.target is not _METADATA:
            remap[node] = graph.node_copy(node, lambda old: remap[old])
    for node in graph.nodes:
        annotate(node)
    settle_caches(graph)
    return graph, {node.name: remap[node] for node in users}


def _mark_state(graph: fx.Graph, weights: Sequence[Weight]) -> None:
    """Placeholders of state say so: the chip keeps them, and no image has them."""
    state = {weight.placeholder for weight in weights if weight.kind == STATE}
    for node in graph.find_nodes(op="placeholder"):
        if node.name in state:
            node.meta["state"] = True


def _mark_numbers(graph: fx.Graph, weights: Sequence[Weight], tensors: Mapping[str, Tensor]) -> None:
    """Single numbers that the code writes as tensors (`torch.tensor(64.0)`) are known while compiling."""
    holders = graph.find_nodes(op="placeholder")[-len(weights) :] if weights else []
    values = {weight.placeholder: tensors[weight.name] for weight in weights if weight.kind == "constant"}
    for node, weight in zip(holders, weights, strict=True):
        value = values.get(weight.placeholder)
        if value is not None and value.numel() == 1:
            node.meta["constant"] = value


def annotate(node: fx.Node) -> None:
    """Keep what the compiler uses of PyTorch's metadata, and drop the rest (it is large, and it would go stale)."""
    kept: dict[str, object] = {key: node.meta[key] for key in ("val", "weight") if key in node.meta}
    kept |= {"source": source_line(node.meta.get("stack_trace")), "origins": (node.name,), "passes": ()}
    stack = node.meta.get("nn_module_stack")
    if stack:
        kept["module"] = str(next(reversed(stack.values()))[0])
    node.meta = kept


def _info(name: str, value: Tensor) -> TensorInfo:
    return TensorInfo(name, tuple(value.shape), value.dtype)


def _arguments(
    program: ExportedProgram, inputs: Sequence[TensorInfo], signature: inspect.Signature | None
) -> tuple[dict[str, object], inspect.Signature | None]:
    """Each argument of the model by name, as a pytree with `Leaf`s; and the signature that binds them."""
    index = {info.name: number for number, info in enumerate(inputs)}
    leaves = []
    for spec in program.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            leaves.append(Leaf(index[spec.arg.name]) if spec.arg.name in index else getattr(spec.arg, "value", None))
    args, kwargs = pytree.tree_unflatten(leaves, program.call_spec.in_spec)
    signature = signature or call_signature(program)
    if signature is not None:
        return named_arguments(signature.bind(*args, **kwargs)), signature
    return {**dict(zip(positional_names(program), args, strict=True)), **kwargs}, None


def positional_names(program: ExportedProgram) -> list[str]:
    """Names of an exported program's positional arguments: the input's own, `arg0` for one that holds several."""
    names = [spec.arg.name for spec in program.graph_signature.input_specs if spec.kind is InputKind.USER_INPUT]
    args, _ = pytree.tree_unflatten(names, program.call_spec.in_spec)
    return [value if isinstance(value, str) else f"arg{number}" for number, value in enumerate(args)]


def call_signature(program: ExportedProgram) -> inspect.Signature | None:
    """How an exported program is called, if its arguments have names that Python can write."""
    _, kwargs = pytree.tree_unflatten([None] * program.call_spec.in_spec.num_leaves, program.call_spec.in_spec)
    kind = inspect.Parameter
    try:
        return inspect.Signature(
            [
                *(kind(name, kind.POSITIONAL_OR_KEYWORD) for name in positional_names(program)),
                *(kind(name, kind.KEYWORD_ONLY) for name in kwargs),
            ]
        )
    except ValueError:
        return None


def _results(
    program: ExportedProgram, gm: fx.GraphModule, caches: Mapping[int, str]
) -> tuple[tuple[TensorInfo, ...], object]:
    """Names of the outputs, from their place in the model's result, and the result with `Leaf`s."""
    values = iter(node.meta["val"] for node in tensors(gm.graph.output_node(), 0))
    leaves: list[object] = []
    count = 0
    for number, spec in enumerate(program.graph_signature.output_specs):
        constant = isinstance(spec.arg, ConstantArgument)
        if spec.kind not in _CHANGES:  # a new value is no part of what the model returns
            leaves.append(spec.arg.value if constant else Leaf(count))
        count += not constant and number not in caches
    result = pytree.tree_unflatten(leaves, program.call_spec.out_spec)
    named: dict[int, str] = {}
    for path, leaf in pytree.tree_flatten_with_path(result)[0]:
        if isinstance(leaf, Leaf):
            named[leaf.index] = _unused(_output_name(path), named.values())
    return tuple(_info(named.get(number, f"changed{number}"), value) for number, value in enumerate(values)), result


def _output_name(path: pytree.KeyPath) -> str:
    """`last_hidden_state` for a field, `output0` for a tuple's element, `output` for a single tensor."""
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    if not parts:
        return "output"
    return ("output" if parts[0].isdigit() else "") + (re.sub(r"\W", "_", "_".join(parts), flags=re.ASCII) or "output")


def _unused(name: str, taken: Collection[str]) -> str:
    """`name`, or with a number where two results would have the same one: {"a_b": x, "a": {"b": y}}."""
    count, found = 1, name
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found
