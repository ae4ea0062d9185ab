"""Mutation score of the checkers: faults seeded into compiled programs, and who notices them. See tools/mutate.py."""
