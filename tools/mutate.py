"""The mutation table: `python -m tools.mutate [--all] [--each N] [--models mlp,bert-1] [--seed S] [--json]`.

Without --all it is a sample, another one every day, of some minutes.

Seeds faults into compiled programs and says who notices them. A mutant is
  caught by lint      `lint.analyse.check` has an error, without running anything;
  caught by verify    a run in program order, or overlapped by one of six adversarial seeds, traps or differs from the
  unmutated
                      program in some bit of an output or tapped node, for one of the inputs;
  harmless            proved: the symbols of all outputs are equal (tools/mutation/values.py: the same operations on the
  same operands
                      in program order, for every input) and brute force over all pairs of instructions finds no race
                      (tools/mutation/races.py), so every order that the chip may choose gives those same bits. A
                      dropped wait that others imply is the usual case;
  survived            none of these. There should be none.
Races and bounds faults (unordered conflicts by brute force; runs that differ only when overlapped; traps on memory)
that are not harmless are the business of lint: "lint finds" is its share of them, "runs show" the share for which some
run really differed.

A second table is the translation check's alone: faults in tile programs, and in the tile passes while they compile. Of
those for which some run traps or differs in a bit ("differ") it must report 99 %; what it reports although no run
differs ("by chance") has other expressions with equal bits.
"""

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import date
from functools import partial
from random import Random

import click

from tools.mutation.faults import FAULTS, mutants
from tools.mutation.pass_faults import PASS_FAULTS
from tools.mutation.score import Verdict
from tools.mutation.subjects import MODELS, TILE_MODELS, subject, tile_subject
from tools.mutation.tile_faults import TILE_FAULTS, tile_mutants
from tools.mutation.tile_score import TileVerdict, judge_pass

EACH, ALL = 50, 100  # faults of each kind in each model: of a sample, and with --all
FEW = 4  # models with which a sample compiles each fault in a pass
COLUMNS = ("fault", "mutants", "lint", "verify", "harmless", "survived", "race/bounds", "lint finds", "runs show")


def measure(models: Sequence[str], each: int, seed: int, thorough: bool = True) -> list[Verdict]:
    """`each` faults of every kind in every model."""
    verdicts = []
    for name in models:
        program = subject(name)
        random = Random(f"{seed} {name}")
        verdicts += [
            program.judge(mutant, thorough=thorough)
            for kind in FAULTS
            for mutant in mutants(program.image, kind, random, each)
        ]
    return verdicts


def table(verdicts: Sequence[Verdict]) -> str:
    rows = [COLUMNS, *(_row(kind, [v for v in verdicts if v.kind == kind]) for kind in FAULTS), _row("all", verdicts)]
    return "\n".join(
        "".join(cell.ljust(16) if i == 0 else cell.rjust(12) for i, cell in enumerate(row)) for row in rows
    )


def measure_tiles(models: Sequence[str], each: int, seed: int, every: bool) -> Iterator[TileVerdict]:
    """`each` faults of every kind in every tile program, and every fault in a pass while some models are compiled, or
    `every` one."""
    few = len(models) if every else min(FEW, len(models))
    chosen = {fault: Random(f"{seed} {fault}").sample(models, few) for fault in PASS_FAULTS}
    for name in models:
        program = tile_subject(name)
        random = Random(f"{seed} {name}")
        verdicts = (
            program.judge(mutant)
            for kind in TILE_FAULTS
            for mutant in tile_mutants(program.program, kind, random, each)
        )
        yield from (verdict for verdict in verdicts if verdict is not None)
        compiling = partial(tile_subject, name, 1)
        passes = (judge_pass(fault, name, compiling) for fault in PASS_FAULTS if name in chosen[fault])
        yield from (verdict for verdict in passes if verdict is not None)


def tile_table(verdicts: Sequence[TileVerdict]) -> str:
    rows: list[tuple[str, ...]] = [("fault", "mutants", "differ", "reported", "missed", "by chance")]
    for kind in (*dict.fromkeys(v.kind for v in verdicts), "all"):
        some = [v for v in verdicts if kind in (v.kind, "all")]
        differ = [v for v in some if v.differs]
        caught = f"{100 * _count(v.report for v in differ) / len(differ):.1f} %" if differ else "-"
        chance = _count(v.report and not v.differs for v in some)
        rows.append((kind, str(len(some)), str(len(differ)), caught, str(_count(v.missed for v in some)), str(chance)))
    return "\n".join(
        "".join(cell.ljust(18) if i == 0 else cell.rjust(12) for i, cell in enumerate(row)) for row in rows
    )


def _row(kind: str, verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    duty = [v for v in verdicts if v.must_lint]
    found, shown = (
        f"{100 * _count(flags) / len(duty):.1f} %" if duty else "-"
        for flags in ([v.lint for v in duty], [v.verify for v in duty])
    )
    counts = (
        len(verdicts),
        _count(v.lint for v in verdicts),
        _count(v.verify and not v.lint for v in verdicts),
        _count(v.harmless and not v.lint and not v.verify for v in verdicts),
        _count(v.survived for v in verdicts),
        len(duty),
    )
    return kind, *map(str, counts), found, shown


def _count(flags: Iterable[object]) -> int:
    return sum(bool(flag) for flag in flags)


@click.command()
@click.option("--models", default=",".join(("loop", *MODELS)), help="which programs, comma separated")
@click.option("--tile-models", default=",".join(TILE_MODELS), help="which tile programs, comma separated")
@click.option("--all", "every", is_flag=True, help=f"{ALL} faults of each kind, faults in passes with every model")
@click.option("--each", default=0, help="faults of each kind in each model (a fifth of that in tile programs)")
@click.option("--seed", default=date.today().toordinal, help="which faults (default: others every day)")
@click.option("--json", "as_json", is_flag=True, help="every verdict, one per line")
def main(models: str, tile_models: str, every: bool, each: int, seed: int, as_json: bool) -> None:
    """Seed faults into compiled programs and report who notices them."""
    start, each = time.process_time(), each or (ALL if every else EACH)
    verdicts = measure(models.split(","), each, seed) if models else []
    tiles = list(measure_tiles(tile_models.split(","), max(each // 5, 1), seed, every)) if tile_models else []
    if as_json:
        both: list[Verdict | TileVerdict] = [*verdicts, *tiles]
        for found in both:
            click.echo(json.dumps(asdict(found)))
        return
    click.echo(table(verdicts))
    for verdict in verdicts:
        if verdict.survived or (verdict.must_lint and not verdict.lint):
            click.echo(
                f"{'survived' if verdict.survived else 'missed by lint'}: {verdict.program}: {verdict.kind}: {verdict.what}"
            )
    click.echo("\n" + tile_table(tiles))
    for missed in (verdict for verdict in tiles if verdict.missed):
        click.echo(f"missed by the translation check: {missed.program}: {missed.kind}: {missed.what}")
    click.echo(f"{len(verdicts) + len(tiles)} mutants, seed {seed}, {time.process_time() - start:.0f} CPU-s")
    sys.exit(
        any(verdict.survived for verdict in verdicts)
        or _count(v.missed for v in tiles) > 0.01 * max(_count(v.differs for v in tiles), 1)
    )


if __name__ == "__main__":
    main()
