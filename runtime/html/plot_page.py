"""Pages of plots: templates that share a head, the colours of day and night, and plotly."""

import re
from collections.abc import Mapping
from importlib import resources

from runtime.plotting import plotting

_BUTTON = '<button id="theme" title="light or dark">☾</button>'


def filled(package: str, name: str, parts: Mapping[str, str]) -> str:
    """The template `name` of a package, with its {{PARTS}}. They are HTML, already escaped.

    Raises InputError without plotly."""
    with plotting("the page"):
        from plotly.offline import get_plotlyjs

    def text(package: str, name: str) -> str:
        return (resources.files(package) / name).read_text(encoding="utf-8")

    shared = {
        "PLOTLY": get_plotlyjs().replace("</script", "<\\/script"),
        "HEAD": text("runtime.html", "plot_head.html").replace("{{TITLE}}", parts["TITLE"]),
        "COLOURS": text("runtime.html", "plot_colours.css"),
        "THEME": _BUTTON + "<script>" + text("runtime.html", "theme.js") + "</script>",
    }
    known = {**shared, **parts}
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: known[match[1]], text(package, name))
