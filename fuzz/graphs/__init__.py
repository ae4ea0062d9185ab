"""Random graphs of PyTorch operations: compiled, run, and compared with the reference and with eager PyTorch.

case.py        a case as text, and the model it describes
maker.py       what makes a case: values so far, sizes, budgets
operators.py   the table of operators
layers.py      groups of steps: attention, repeated layers
trust.py       how near each value must be to eager PyTorch's
quick.py       PyTorch's part of a capture, paid once
checks.py      what is checked of a case
shrink.py      a smaller case with the same fault
"""
