"""A profile in words: what terminal and pages call things."""


def cause(name: str, resource: str) -> str:
    """A part of the waterfall of a resource; without one, of those that work and waiting have in common."""
    if name == "compute":
        return f"{resource} works"
    return name.replace("waiting_", "waits for " if resource else "").replace("_", " and ")


def size(count: int) -> str:
    """Bytes for people."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
