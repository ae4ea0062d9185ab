"""The torch.compile backend, found through the entry point `llmchip` of group torch_dynamo_backends.

    torch.compile(model, backend="llmchip", options={"chip": "server", "fallback": False})

Nothing is compiled when Dynamo asks: each combination of shapes is compiled when it is first called. So sizes are
concrete, and errors reach the caller as they are, not wrapped in Dynamo's own.
"""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from compiler.frontend.calibration import Calibration
from compiler.frontend.checks import check_layout
from compiler.frontend.dynamo import Role, roles
from compiler.frontend.step_graph import called_model, sources, step_graph
from compiler.options import Options
from isa.chip import Chip, load_chip
from isa.errors import CompileError
from runtime.pytorch.call import Runner, compiled
from runtime.pytorch.decoding import Decoding
from runtime.pytorch.export_lock import alone
from runtime.pytorch.fallback import Policy
from runtime.pytorch.pieces import Setting
from runtime.pytorch.weights import refresh

__all__ = ["backend", "refresh"]

# Without it Dynamo breaks the graph at nn.LSTM, GRU and RNN, and nobody hears of it. It is read before any backend is
# asked, so it cannot be ours alone (docs/fallback.md).
torch._dynamo.config.allow_rnn = True


def backend(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> "Frame | Decoding":
    """What `torch.compile(model, backend="llmchip", options={…})` calls with a graph of torch operations, the weights
    among its inputs. `options` are those of `llmcc compile --option`, `chip`, and `fallback=False`, which makes an error
    of what would run in PyTorch."""
    frame = Frame(gm, roles(gm, example_inputs), options or {}, mode)
    model = called_model()
    step = None if model is None else step_graph(gm, list(sources(gm)), model)
    return frame if model is None or step is None else Decoding(gm, step, model, frame.setting, frame)


class Frame:
    """One of Dynamo's graphs, compiled per combination of shapes. Returns a tuple."""

    def __init__(self, gm: fx.GraphModule, known: Sequence[Role], options: Mapping[str, Any], mode: str | None) -> None:
        self._gm, self._floats = _numbers_for_tensors(gm, known)
        self._roles = tuple(known)
        self._given, self._mode = dict(options), mode
        self._settings: tuple[Options, Chip] | None = None
        self._runners: dict[tuple[Any, ...], Runner] = {}
        self._inputs = tuple(
            position for position, role in enumerate(known) if role.kind == "input" and position not in self._floats
        )

    def __call__(self, *args: Any) -> tuple[Any, ...]:
        values = (
            [arg.item() if index in self._floats else arg for index, arg in enumerate(args)] if self._floats else args
        )
        key = _key(values, self._inputs)
        runner = self._runners.get(key)
        if runner is None:
            with alone():
                runner = self._runners.get(key) or self._compile(values)
                self._runners[key] = runner
        return runner(*values)

    def _compile(self, values: Sequence[Any]) -> Runner:
        """The graph for arguments like these: on the chip as far as that goes, else as PyTorch runs it."""
        setting = self.setting()
        try:
            self._check(values)
            return compiled(self._gm, values, self._roles, setting)
        except Warning:  # ours, of what falls back, which the user wants as errors
            raise
        except Exception as error:
            setting.policy.accept(error)
            setting.teller.tell(error)
            return self._gm

    def setting(self) -> Setting:
        """What the frame is compiled with."""
        options, chip = self._checked()
        return Setting(options, chip, Policy.of(options, self._given), calibration=self._calibration())

    def _calibration(self) -> Calibration | None:
        """What `options["calibration"]` is. Raises CompileError for inputs: a frame may be a part of the model that they
        are for."""
        found = self._given.get("calibration")
        if found is None or isinstance(found, Calibration):
            return found
        raise CompileError(
            f"option 'calibration' is a {type(found).__name__}",
            hint='torch.compile takes options={"calibration": llmchip.calibrate(model, inputs)}',
        )

    def _checked(self) -> tuple[Options, Chip]:
        """Options and mode as the user gave them."""
        if self._settings is None:
            if self._mode is not None:
                raise CompileError(
                    f"there is no mode '{self._mode}'", hint="use options={...}; 'llmcc compile --help' lists them"
                )
            given = self._given.get("chip", "edge")
            chip = load_chip(given)
            given_options = {name: value for name, value in self._given.items() if name != "calibration"}
            named = {**given_options, "chip": given if isinstance(given, str) else chip.name}
            self._settings = Options.from_strings(named), chip
        return self._settings

    def _check(self, values: Sequence[Any]) -> None:
        """Refuse what cannot even be captured, and a train mode, whose results are random and whose point are
        gradients."""
        for node in self._gm.graph.nodes:
            if _trains(node):
                raise CompileError("the model is in train mode", f"{node.name}", "call model.eval() first")
        for role, value in zip(self._roles, values, strict=True):
            if isinstance(value, Tensor):
                check_layout(f"{role.kind} '{role.name}'", value)


def _key(values: Sequence[Any], inputs: Sequence[int]) -> tuple[Any, ...]:
    """Equal for arguments that one program serves: the same shapes and types of tensors, strides of `inputs`, the same
    numbers."""
    strides = tuple([values[position].stride() for position in inputs])
    try:
        return tuple(map(Tensor.size, values)), tuple(map(_DTYPE, values)), strides
    except TypeError:  # not tensors alone
        tensors = [value for value in values if isinstance(value, Tensor)]
        numbers = tuple((n, type(v), _exactly(v)) for n, v in enumerate(values) if not isinstance(v, Tensor))
        return tuple(map(Tensor.size, tensors)), tuple(map(_DTYPE, tensors)), strides, numbers


def _exactly(number: Any) -> Any:
    """Equal only for one and the same number: 0.0 == -0.0, and NaN is equal to nothing."""
    return repr(number) if isinstance(number, (float, complex)) else number


_DTYPE = operator.attrgetter("dtype")


def _numbers_for_tensors(gm: fx.GraphModule, known: Sequence[Role]) -> tuple[fx.GraphModule, frozenset[int]]:
    """With dynamic=True Dynamo passes Python floats as 0-d float64 tensors and calls item(). Give the graph the numbers
    instead.

    Returns a copy of the graph, and the positions of these arguments.
    """
    graph = fx.Graph()
    remap: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(gm.graph, remap))
    for old, new in remap.items():
        new.meta = {
            key: value for key, value in old.meta.items() if key != "grapharg"
        }  # that one holds the example's memory
    found = set()
    for index, node in enumerate(graph.find_nodes(op="placeholder")):
        value = node.meta.get("example_value")
        only_items = bool(node.users) and all(user.op == "call_method" and user.target == "item" for user in node.users)
        if (
            isinstance(value, Tensor)
            and value.dtype is torch.float64
            and not value.shape
            and only_items
            and known[index].kind != "param"
        ):
            found.add(index)
            for user in list(node.users):
                user.replace_all_uses_with(node)
                graph.erase_node(user)
    return fx.GraphModule(gm, graph), frozenset(found)


_TRAINED: Mapping[Any, tuple[int, str]] = {
    torch.nn.functional.dropout: (2, "training"),
    torch.nn.functional.batch_norm: (5, "training"),
    torch.nn.functional.instance_norm: (5, "use_input_stats"),
    torch.dropout: (2, "train"),
}
_NORMS = (torch.nn.functional.batch_norm, torch.nn.functional.instance_norm)


def _trains(node: fx.Node) -> bool:
    """Whether this call does something else in train mode than in eval mode, and is in train mode."""
    if node.target is torch.nn.functional.scaled_dot_product_attention:
        return bool(node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0))
    if node.op != "call_function" or node.target not in _TRAINED:
        return False
    position, name = _TRAINED[node.target]
    training = _given(node, position, name, (position, name) == (2, "training") or name == "use_input_stats")
    # a norm that stores no statistics takes the batch's own in eval mode, too
    return bool(training) and (node.target not in _NORMS or _given(node, 1, "running_mean") is not None)


def _given(node: fx.Node, position: int, name: str, default: object = None) -> object:
    """An argument of a call, by position or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)
