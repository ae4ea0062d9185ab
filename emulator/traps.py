"""A fault as the user sees it: one text for one trap, whoever executes the instruction."""

from emulator.budget import Spent
from isa.architecture import WORD_BYTES
from isa.asm.text import format_inst
from isa.codec import IllegalInstruction, decode
from isa.errors import OverBudget, Trap


def trap_of(fault: Exception, code: bytes, index: int, node: str = "") -> Trap:
    """What stopped the chip at instruction `index`; `node` is what that instruction works for."""
    pc = index * WORD_BYTES
    data = code[pc : pc + WORD_BYTES] if pc >= 0 else b""
    try:
        text = format_inst(decode(data)) if len(data) == WORD_BYTES else ""
    except IllegalInstruction:
        text = f".word 0x{int.from_bytes(data, 'little'):032x}"
    if not isinstance(fault, Spent):
        return Trap(str(fault), pc, text, node)
    trap = OverBudget(str(fault), pc, text, node)
    trap.hint = "does the program end? 'llmcc lint' says; --max-instructions allows more"
    return trap
