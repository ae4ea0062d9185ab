"""Which scheme for which layer: the search, on numbers that can be checked by hand and by trying everything."""

import random
from collections.abc import Sequence
from itertools import product

from compiler.quantization import QuantConfig
from runtime.quantize.document import Choice, Layer, Measured
from runtime.quantize.search import Option, cheapest
from runtime.quantize.suggest import Search

FAST, SLOW, EXACT = Option("fast", 0.3, 10), Option("slow", 0.1, 14), Option("exact", 0.0, 40)


def test_the_step_that_saves_most_error_for_its_cycles_comes_first() -> None:
    """Breaks when a layer is made exact although two slower ones are enough."""
    layers = {"a": [FAST, SLOW, EXACT], "b": [FAST, SLOW, EXACT]}
    found = cheapest(layers, 0.25)
    assert found is not None and {o.scheme for o in found.values()} == {"slow"}
    assert cheapest(layers, 0.6) == {"a": FAST, "b": FAST}
    assert cheapest(layers, 0.0) == {"a": EXACT, "b": EXACT}
    assert cheapest({"a": [FAST, SLOW]}, 0.05) is None


def test_it_is_near_the_best_of_all_choices() -> None:
    """Breaks when the budget is not kept, or room that is left is not used."""
    draws, extra = random.Random(0), []
    for _ in range(60):
        layers: dict[str, Sequence[Option]] = {
            str(i): [Option(str(j), draws.random() * (3 - j) / 3, draws.randint(10, 30) * (j + 1)) for j in range(3)]
            for i in range(4)
        }
        budget = draws.uniform(0.3, 3.0)
        every = [c for c in product(*layers.values()) if sum(o.error for o in c) <= budget]
        found = cheapest(layers, budget)
        assert (found is None) == (not every)
        if found is not None:
            assert sum(o.error for o in found.values()) <= budget
            least = min(sum(o.cycles for o in c) for c in every)
            extra.append(sum(o.cycles for o in found.values()) / least)
    assert max(extra) < 1.6 and sum(extra) / len(extra) < 1.1


LAYERS = tuple(
    Layer(f"layer.{i}", 8, 32, 32, (Choice("w8a8-dynamic", 0.001 * (i + 1), 0.9, 100), Choice("float", 0.0, 1.0, 300)))
    for i in range(4)
)


def test_measurements_decide() -> None:
    """Breaks when a prediction is believed, or attention is given up last although it is what is wrong."""
    tried = []

    def measure(config: QuantConfig) -> Measured:
        tried.append(config)
        errors = [c.error * 2 for layer in LAYERS for c in layer.choices if c.scheme == config.of(layer.module)]
        error = sum(errors) + (0.0 if config.of("attention") == "float" else 0.002)
        return Measured(str(config), 1 - error, 0.9, None, 1000 + 10 * len(config.pairs))

    def search(least: float) -> str | None:
        tried.clear()
        return Search(LAYERS, ["attention"], 0.5, 1 - least, measure, lambda m: m.cosine >= least).run()[1]

    assert search(0.95) == "w8a8-dynamic"  # good enough as it is
    found = search(0.99)  # twice the predicted error: the first mixture is not enough
    assert found is not None and len(tried) > 3
    assert QuantConfig.parse(found).of("layer.3") == "float" and QuantConfig.parse(found).of("attention") != "float"
    found = search(0.9995)  # only without int8 attention
    assert found is not None and QuantConfig.parse(found).of("attention") == "float"
    assert search(1.1) is None
