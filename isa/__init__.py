"""The instruction set: table, encoding, assembly, images, chips. Imports nothing else of the project."""
