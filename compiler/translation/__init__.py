"""The translation check: the tile program computes what the frozen graph says, element by element. Run on every
compile.

It shares no code with what it checks: of the tile passes it knows the classes of the program alone.
"""
