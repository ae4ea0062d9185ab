"""What an extension (isa/extension.py) adds to the compiler: operations, their emitters, passes, and the rules of the
translation check."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from compiler.emit.emitter import EMITTERS, Emit
from compiler.graph.manager import Pass
from compiler.ops.record import ChipOp
from compiler.ops.table import BY_TARGET, OPS
from compiler.passes.decompose import known_operations
from compiler.translation import instructions as instruction_rules
from compiler.translation import operators as graph_rules
from isa.errors import InputError
from isa.extension import INSTALLED


@dataclass(frozen=True)
class CompilerPart:
    """Tables of the compiler, continued.

    `operators` may remain in a frozen graph, `emitters` turn them into instructions, both by name. `passes` run behind
    those of the pipeline, before equal work is shared: fusions, for example. `meaning` (of operations) and
    `instructions` (of mnemonics) say the same in symbols, for the check that compares each program with its graph:
    write them after the documentation, not after the emitter."""

    operators: tuple[ChipOp, ...] = ()
    emitters: Mapping[str, Emit] = field(default_factory=dict)
    passes: tuple[Pass, ...] = ()
    meaning: Mapping[str, graph_rules.Compute] = field(default_factory=dict)
    instructions: Mapping[str, instruction_rules.Rule] = field(default_factory=dict)


_PARTS: dict[str, CompilerPart] = {}


def install() -> None:
    """Add what the installed extensions bring, each once."""
    for name, extension in INSTALLED.items():
        if name not in _PARTS:
            part = _made(extension.compiler)
            _check(name, part)
            _PARTS[name] = part
            for op in part.operators:
                OPS[op.name] = replace(op, extension=name)
                BY_TARGET.update(dict.fromkeys(op.targets, OPS[op.name]))
            EMITTERS.update(part.emitters)
            graph_rules.RULES.update(part.meaning)
            instruction_rules.RULES.update(part.instructions)
            known_operations.cache_clear()


def _check(name: str, part: CompilerPart) -> None:
    """Raises InputError where the part says something of what is not its own."""
    own, rows = {op.name for op in part.operators}, {row.mnemonic for row in INSTALLED[name].instructions}
    taken = (own & OPS.keys()) | {op.name for op in part.operators if BY_TARGET.keys() & set(op.targets)}
    foreign = (part.emitters.keys() | part.meaning.keys()) - own | part.instructions.keys() - rows
    if taken or foreign:
        raise InputError(f"extension '{name}' redefines {', '.join(sorted(taken | foreign))}")


def _made(compiler: Callable[[], object] | None) -> CompilerPart:
    part = compiler() if compiler is not None else CompilerPart()
    assert isinstance(part, CompilerPart), "an extension's `compiler` gives a CompilerPart"
    return part


def passes() -> list[Pass]:
    """The passes of all extensions."""
    return [step for part in _PARTS.values() for step in part.passes]
