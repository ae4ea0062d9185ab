"""A model on a chip in one report: what it is, how accurate, whether its bits are right, and what it costs."""
