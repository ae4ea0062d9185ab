"""A profile in words: what terminal and pages call things."""


def cause(name: str, resource: str) -> str:
    """A part of the waterfall of a resource; without one, of those that work and waiting have in common."""
    if name == "compute":
        return f"{resource} works"
    return name.replace("waiting_", "waits for " if resource else "").replace("_", " and ")
