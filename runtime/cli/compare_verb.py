"""`llmcc compare`: what has changed between two programs, where, and why."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click
import msgspec

from isa.errors import InputError
from runtime.cli import completion
from runtime.cli.common import (
    Given,
    Stages,
    build_options,
    common_options,
    examples,
    need,
    reply,
    say,
    signed_size,
    stages,
)
from runtime.cli.outputs import OutputFile
from runtime.cli.programs import open_any
from runtime.cli.tables import Column, show
from runtime.compare.document import difference
from runtime.compare.words import SHOWN, UNNAMED, joined, signed, title_of
from runtime.plotting import check_plotting
from runtime.profile.words import cause

if TYPE_CHECKING:
    from runtime.compare.compare import Side
    from runtime.compare.document import Change, ComparisonDocument, Figure, Pair

_TOP = 3
_FACTS = 6
_FIGURES = (Column(""), *(Column(name, right=True) for name in ("A", "B", "B-A", "%")), Column("mostly", prose=True))
_CHANGES = (
    Column("cycles", right=True),
    Column("%", right=True),
    Column("µJ", right=True, spare=2),
    Column("DRAM", right=True, spare=3),
    Column("instr.", right=True, spare=4),
    Column("mostly", spare=1),
)


@click.command(
    name="compare",
    epilog=examples(
        "llmcc compare before.llmchip after.llmchip",
        "llmcc compare monday.json after.llmchip --html changes.html",
        "llmcc compare minilm --chip edge --chip server --seq 128",
        "llmcc compare gemm.s faster.s --json",
    ),
)
@click.argument("a", metavar="A", shell_complete=completion.models)
@click.argument("b", metavar="[B]", required=False, shell_complete=completion.models)
@click.option(
    "--chip",
    "chips",
    metavar="NAME|FILE.toml",
    multiple=True,
    shell_complete=completion.chips,
    help="Chip to compile for; given twice, A is compared with itself on these two chips. [default: edge]",
)
@click.option(
    "--threshold",
    metavar="PERCENT",
    type=click.FloatRange(0, 100),
    default=0.5,
    show_default=True,
    help="Leave out what differs by less than this part of the whole run's figure.",
)
@click.option(
    "--top",
    metavar="N",
    type=click.IntRange(0),
    default=_TOP,
    show_default=True,
    help="Rows of each table, those that differ most; 0: all.",
)
@click.option("--html", metavar="FILE", type=OutputFile(check_plotting), help="Write one self-contained page, too.")
@build_options
@common_options
def command(
    a: str,
    b: str | None,
    chips: tuple[str, ...],
    threshold: float,
    top: int,
    html: str | None,
    as_json: bool,
    traceback: bool,
    **rest: Any,
) -> int:
    """Compare two runs: cycles, energy, DRAM bytes and instructions, by cause, layer and node of the model.

    A and B are images, assembly text, profiles (what 'llmcc profile --json' wrote, in a file .json) or models, which are
    compiled first. Nodes are matched by the model's names and source lines, so that a node more does not rename the
    others. Exit code 1 if anything differs by the threshold or more.
    """
    pairs = _what(a, b, chips)
    _check_profiles([name for name, _ in pairs], chips, Given(**rest))
    with stages("compare") as stage:
        from runtime.compare.compare import compare

        left, right = (_side(name, Given(chip=chip, **rest), stage) for name, chip in pairs)
        stage("compare")
        found = compare(left, right, threshold / 100)
        if html is not None:
            from isa.files import write_atomic
            from runtime.html.compare_page import page

            write_atomic(html, [page(found).encode("utf-8", "backslashreplace")])
    reply(msgspec.to_builtins(found), as_json, lambda: print_comparison(found, top))
    return 0 if found.same else 1


def _what(a: str, b: str | None, chips: Sequence[str]) -> list[tuple[str, str | None]]:
    """The two programs and their chips. Raises InputError."""
    need(len(chips) <= 2, f"--chip is given {len(chips)} times", a, "compare two chips at a time")
    if len(chips) == 2:
        need(b is None, "two chips and two programs are given", a, "name one program, or one chip")
        return [(a, chips[0]), (a, chips[1])]
    if b is None:
        raise InputError("there is nothing to compare it with", a, "name a second program, or --chip twice")
    return [(name, chips[0] if chips else None) for name in (a, b)]


def _check_profiles(names: Sequence[str], chips: Sequence[str], given: Given) -> None:
    """Raise InputError for options that would change nothing: profiles are what they are."""
    from runtime.compare.sides import is_profile

    if all(map(is_profile, names)):
        wanted = {
            "--chip": chips,
            "--set": given.settings,
            "--seq": given.seq,
            "--batch": given.batch,
            "--option": given.option,
        }
        for flag, value in wanted.items():
            need(not value, f"{flag} does not go with profiles", names[0], "it was decided when they were made")


def _side(name: str, given: Given, stage: Stages) -> "Side":
    from runtime.compare.compare import Side
    from runtime.compare.sides import is_profile, read_profile, timed

    if is_profile(name):
        return Side(name, read_profile(name))
    image, _ = open_any(name, given, stage)
    stage("time the program")
    return Side(name, timed(image, name))


def print_comparison(found: "ComparisonDocument", top: int) -> None:
    """At most 20 lines, unless more are asked for."""
    say(f"A {found.a} on chip {found.chips[0]}, B {found.b} on chip {found.chips[1]}")
    if found.facts:
        say(_facts(found.facts))
    for note in found.notes:
        say(note)
    most = top or len(found.nodes) + len(found.layers) + len(found.figures[0].parts)
    show(_FIGURES, [row for figure in found.figures for row in _figure(figure, found, most)])
    total = found.figures[0].total[0]
    only_one = [layer.name for layer in found.layers] == [UNNAMED]  # nothing is known that would tell layers apart
    for title, changes in (
        ("layer", joined(found.layers)),
        ("node", [(title_of(change), [change]) for change in found.nodes]),
    ):
        if changes and not (title == "layer" and only_one):
            rows = [_change(name, parts, total, found.waterfall_resource) for name, parts in changes[:most]]
            show((Column(title, prose=True, by_end=title == "layer"), *_CHANGES), rows)
    if rest := ", ".join(_rest(found, most)):
        say(rest)


def _facts(facts: Mapping[str, tuple[str, str]]) -> str:
    listed = [f"{name}: {a} → {b}" for name, (a, b) in facts.items()]
    more = f"; {len(listed) - _FACTS} more in --json" if len(listed) > _FACTS else ""
    return "; ".join(listed[:_FACTS]) + more


def _figure(figure: "Figure", found: "ComparisonDocument", top: int) -> Iterator[tuple[str, ...]]:
    """A line of the whole; cycles also by cause, the others with the parts that changed most beside them."""
    (title, scale), resource = SHOWN[figure.name], found.waterfall_resource
    parts = sorted(figure.parts.items(), key=lambda item: -abs(difference(item[1])))
    parts = [
        (name, pair)
        for name, pair in parts
        if abs(difference(pair)) >= found.threshold * figure.total[0] and difference(pair)
    ]
    detailed = figure.name == "cycles"
    beside = "" if detailed else ", ".join(f"{name} {signed(difference(pair) * scale)}" for name, pair in parts[:2])
    yield (title, *_numbers(figure.total, figure.total[0], scale), beside)
    for name, pair in parts[:top] if detailed else ():
        yield (f"  {cause(name, resource)}", *_numbers(pair, figure.total[0], scale))


def _numbers(pair: "Pair", whole: float, scale: float) -> tuple[str, ...]:
    a, b = (round(value * scale) for value in pair)
    return f"{a:,}", f"{b:,}", signed(difference(pair) * scale), f"{difference(pair) / whole:+.1%}" if whole else ""


def _change(name: str, changes: Sequence["Change"], total: float, resource: str) -> tuple[str, ...]:
    cycles, joules, moved, instructions = (
        sum(difference(getattr(change, figure)) for change in changes)
        for figure in ("cycles", "energy_joules", "dram_bytes", "instructions")
    )
    largest = max(changes, key=lambda change: abs(difference(change.cycles)))
    return (
        name, signed(cycles), f"{cycles / total:+.1%}" if total else "", signed(joules * 1e6), signed_size(moved),
        signed(instructions), cause(largest.cause, resource),
    )  # fmt: skip


def _rest(found: "ComparisonDocument", top: int) -> Iterator[str]:
    for name, shown in (("layer", len(joined(found.layers))), ("node", len(found.nodes))):
        if shown > top:
            yield f"{shown - top} more {name}{'s' if shown > top + 1 else ''}"
        if count := found.left_out[f"{name}s"]:
            yield f"{count} {name}{'s differ' if count > 1 else ' differs'} by less than {found.threshold:.1%}"
