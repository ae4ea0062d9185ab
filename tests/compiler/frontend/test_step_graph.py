"""Graphs of Dynamo's that are steps of a decoder, and what is left of them without the model."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from families import VOCABULARY, tiny
from torch import Tensor, fx

from compiler.frontend.step_graph import StepGraph, called_model, sources, step_graph

Traced = list[tuple[fx.GraphModule, StepGraph | None, list[Any]]]


def traced(model: Any, **options: Any) -> Traced:
    """Every graph of a short text, with the arguments of its first call as they were before it."""
    found: Traced = []

    def backend(gm: fx.GraphModule, _: Sequence[Any]) -> Any:
        caller = called_model()
        step = None if caller is None else step_graph(gm, list(sources(gm)), caller)
        at = len(found)
        found.append((gm, step, []))

        def call(*args: Any) -> Any:
            found[at][2].extend([] if found[at][2] else cloned(args))
            return gm(*args)

        return call

    model.compile(backend=backend)
    for length in (5, 12):
        ids = torch.randint(3, VOCABULARY, (1, length), generator=torch.Generator().manual_seed(0))
        model.generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0, **options)
    return found


def cloned(args: Sequence[Any]) -> list[Any]:
    return [arg.clone() if isinstance(arg, Tensor) else arg for arg in args]


def _compiled(model: Any, backend: Any) -> Any:
    return torch.compile(model, backend=backend)


class _Made(fx.Interpreter):
    """Runs a graph and remembers the values of some nodes."""

    def __init__(self, gm: fx.GraphModule, names: Sequence[str]) -> None:
        super().__init__(gm)
        self.values: dict[str, Any] = dict.fromkeys(names)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n.name in self.values:
            self.values[n.name] = result.clone()
        return result


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static", "disable_compile": True}])
@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.slow
def test_the_rest_of_a_step_makes_of_it_what_the_graph_makes(window: int | None, options: dict[str, Any]) -> None:
    """Breaks when a step is not recognised; or when what is left of it, given logits, keys and values, returns or
    changes in place anything else than the graph does, or needs weights. Windows have caches of their own kind."""
    model = tiny("mistral", num_hidden_layers=1, sliding_window=window)
    graphs = traced(model, **options)
    assert len(graphs) >= 4
    for gm, step, args in graphs:
        assert step is not None and len(step.held) == 1
        weights = {*step.parameters.values(), *step.buffers.values()}
        holders = step.rest.graph.find_nodes(op="placeholder")
        assert not any(holders[at].users for at in weights)
        interpreter = _Made(gm, [node.name.removeprefix("made_") for node in holders[len(args) :]])
        given, others = cloned(args), cloned(args)
        expected = interpreter.run(*given)
        found = step.rest(*others, *interpreter.values.values())
        assert len(found) == len(expected) and all(map(_same, found, expected))
        assert all(torch.equal(a, b) for a, b in zip(given, others, strict=True) if isinstance(a, Tensor))


def _same(found: Any, expected: Any) -> bool:
    """Tensors by their values; a length may be a number."""
    return torch.equal(found, expected) if isinstance(expected, Tensor) else bool(found == expected)


@pytest.mark.wide
@pytest.mark.parametrize("more", [{"output_hidden_states": True}, {"labels": torch.zeros(1, 4, dtype=torch.long)}])
def test_more_than_logits_is_no_step(more: dict[str, Any]) -> None:
    """Breaks when a graph that gives hidden states or a loss, too, is taken for a step."""
    from transformers import DynamicCache

    model, steps = tiny("llama", num_hidden_layers=1), []

    def backend(gm: fx.GraphModule, _: Sequence[Any]) -> Any:
        caller = called_model()
        steps.append(None if caller is None else step_graph(gm, list(sources(gm)), caller))
        return gm.forward

    with torch.no_grad():
        _compiled(model, backend)(input_ids=torch.ones(1, 4, dtype=torch.long), past_key_values=DynamicCache(), **more)
    assert steps and not any(steps)


def test_a_call_without_a_cache_is_no_step() -> None:
    """Breaks when a call that keeps no cache is taken for a step, which would round keys and values."""
    model, models = tiny("llama", num_hidden_layers=1), []

    def backend(gm: fx.GraphModule, _: Sequence[Any]) -> Any:
        models.append(called_model())
        return gm.forward

    with torch.no_grad():
        _compiled(model, backend)(input_ids=torch.ones(1, 4, dtype=torch.long))
    assert models == [None]
