"""The instruction set: table, words, assembly, images, chips. Imports nothing else of the project."""
