"""What each directive means, for whoever asks: docs/assembly.md has the same rows, and a test holds them together."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DirectiveHelp:
    """An example and what it means, of one directive or of several."""

    example: str
    meaning: str
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Without the dot."""
        return (self.example.split()[0][1:], *self.also)


ROWS = (
    DirectiveHelp(".equ K=64, A=v3", "constants and register aliases, each usable by those after it"),
    DirectiveHelp('.include "file"', "another text, relative to this one, in the folder of the first text or below it"),
    DirectiveHelp('.chip "edge"', "the chip: a stock name, a TOML file, or all its keys; default edge"),
    DirectiveHelp(".entry name=main, pc=main", "an entry point; the tensors and scalars that follow belong to it"),
    DirectiveHelp(
        ".input name=x, shape=[2, K], dtype=float32",
        "an input. Without `region` it is placed behind what is there, and `x` becomes its offset. `.output` likewise",
        ("output",),
    ),
    DirectiveHelp(".scalar name=length, minimum=1, maximum=K", "an integer argument of the launch, in region `params`"),
    DirectiveHelp(".state name=cache, shape=[K], dtype=float16", "a tensor that is kept between launches"),
    DirectiveHelp(
        ".const name=w, shape=[4], dtype=float32, values=[1, 2, 3, 4]",
        'initial data with a name; also `fill=0` or `file="w.bin"`; `region=weights`',
    ),
    DirectiveHelp(
        ".data const dtype=int8, values=[1, 2, 3]",
        "initial data without a name, appended to a region; also `fill=0, count=9`",
    ),
    DirectiveHelp(
        ".buffer name=tile, space=sram, bytes=K*4",
        "memory on the chip, placed by the assembler; `tile` becomes its address. `space=acc`, `align=64`",
    ),
    DirectiveHelp('.region weights bytes=0x1000, file="p.bin"', "the size of a region and its data"),
    DirectiveHelp('.hex const "00ff12"', "data in hexadecimal, appended"),
    DirectiveHelp(".word 0x0123...", "a word as a number"),
    DirectiveHelp(".isa 1", "the version that the text was written for"),
    DirectiveHelp('.meta "key"=value', "metadata of the image"),
    DirectiveHelp(".lines off", "no debug map; see below"),
    DirectiveHelp(
        ".constant .plan .node .probe .span",
        "packed constants, memory plan and debug map, as the disassembler writes them",
        ("plan", "node", "probe", "span"),
    ),
)
DIRECTIVE_HELP = {name: row for row in ROWS for name in row.names}
