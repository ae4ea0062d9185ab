"""Static memory planning: blocks with live ranges in, offsets out, with a certificate.

`problem` has the records, `check` the independent checker, `solve.plan` the entry point.
"""
