"""From layers alone to a whole model: what is predicted to be enough is measured, until it is."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from compiler.quantization import DYNAMIC, QuantConfig
from runtime.quantize.document import Layer, Measured
from runtime.quantize.search import Option, cheapest

SHARES = (1.0, 0.6, 0.35, 0.2, 0.1)  # of the error that the target allows: how much layers may have, try by try
EXACT = "float"


@dataclass(frozen=True)
class Search:
    """`measure` runs a whole model; `reached` is whether that is good enough; `allowed` is the largest error, 1 - the
    mean cosine. `others` are the modules of products that no layer is."""

    layers: Sequence[Layer]
    others: Sequence[str]
    smoothing: float | None
    allowed: float
    measure: Callable[[QuantConfig], Measured]
    reached: Callable[[Measured], bool]

    def run(self) -> tuple[tuple[Measured, ...], str | None]:
        """What was measured, and the text of the cheapest that is good enough."""
        found: dict[str, Measured] = {}
        for config in self._tries(found):
            text = str(config)
            if text not in found:
                found[text] = self.measure(config)
        enough = [measured for measured in found.values() if self.reached(measured)]
        best = min(enough, key=lambda measured: measured.cycles, default=None)
        return tuple(found.values()), None if best is None else best.quantization

    def _tries(self, found: Mapping[str, Measured]) -> Iterator[QuantConfig]:
        """The default, with smoothing, then mixtures: those in which attention and convolutions stay int8 first. Ends with the first mixture that
        is good enough."""
        yield QuantConfig()
        base = QuantConfig(smoothing=self.smoothing)
        yield base
        alone = sum(choice.error for layer in self.layers for choice in layer.choices if choice.scheme == DYNAMIC)
        rest = max(1 - found[str(base)].cosine - alone, 0.0)  # what is no layer's
        for exact in ((), tuple(self.others)) if self.others else ((),):
            for budget in sorted({*([] if exact else [self.allowed - rest]), *(s * self.allowed for s in SHARES)})[
                ::-1
            ]:
                chosen = cheapest({layer.module: _options(layer) for layer in self.layers}, budget)
                if chosen is None:
                    continue
                config = self._config({name: option.scheme for name, option in chosen.items()}, exact)
                yield config
                if self.reached(found[str(config)]):
                    return

    def _config(self, schemes: Mapping[str, str], exact: Sequence[str]) -> QuantConfig:
        """The commonest scheme for the model, the others as overrides."""
        ((common, _),) = Counter(schemes.values()).most_common(1) or [(DYNAMIC, 0)]
        overrides = {name: scheme for name, scheme in schemes.items() if scheme != common}
        overrides |= dict.fromkeys(exact, EXACT) if common != EXACT else {}
        return QuantConfig(common, self.smoothing, overrides)


def _options(layer: Layer) -> list[Option]:
    return [Option(choice.scheme, max(choice.error, 0.0), choice.cycles) for choice in layer.choices]
