"""The language server of the assembly: what is wrong, what a word means, where a name is defined. Needs no torch."""
