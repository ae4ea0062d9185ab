"""A program as people read it: filtered disassembly, and two programs side by side."""
