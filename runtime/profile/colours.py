"""The colours of a profile, the same on every page: of engines, resources and causes of waiting; by day and by night."""

COLOURS = {  # on light paper, on dark paper
    "dispatch waits": ("#8a9097", "#7d858c"),
    "ldw": ("#1f7a4d", "#53c48a"),
    "lda": ("#3a9d6b", "#7fdcae"),
    "sto": ("#7a8f1f", "#c0d35a"),
    "mxu weights": ("#d98a6f", "#c9755a"),
    "mxu": ("#b3401f", "#ff9068"),
    "vec": ("#2864c7", "#82b1ff"),
    "act": ("#8a3fb5", "#d09bf2"),
    "dram": ("#1f7a4d", "#53c48a"),
    "compute": ("#3b7d3b", "#5fae5f"),
    "limit": ("#9aa1a8", "#7d858c"),
    "excess": ("#6f9f3f", "#9cc46a"),
    "waiting_dram": ("#1f7a4d", "#53c48a"),
    "waiting_mxu": ("#b3401f", "#ff9068"),
    "waiting_vec": ("#2864c7", "#82b1ff"),
    "waiting_act": ("#8a3fb5", "#d09bf2"),
    "dependence": ("#b58900", "#e0b93c"),
    "dispatch": ("#8a9097", "#7d858c"),
    "fill_drain": ("#d98a6f", "#c9755a"),
    "sram": ("#b58900", "#e0b93c"),
    "acc": ("#76b7b2", "#76b7b2"),
    "instructions": ("#8a9097", "#7d858c"),
    "static": ("#bab0ac", "#8f8783"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}


def css() -> str:
    """The same as variables of CSS: `--mxu`, `--waiting-dram`."""
    names = (f"--{name.replace('_', '-').replace(' ', '-')}" for name in COLOURS)
    pairs = zip(names, COLOURS.values(), strict=True)
    return " ".join(f"{name}: light-dark({light}, {dark});" for name, (light, dark) in pairs)
