"""Pages made with Jinja2: values are escaped, and scripts, styles and data go into the page itself."""

import re
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from runtime.html.page import inside_script
from runtime.plotting import plotting
from runtime.profile.colours import css

if TYPE_CHECKING:
    from jinja2 import Environment

_MAP = re.compile(r"\n?(?://|/\*)# sourceMappingURL=.*$", re.M)  # of a library's file: nobody has it
_FOLDER = "runtime.html"


def rendered(name: str, data: bytes, **values: Any) -> str:
    """The template of this name. `data` is JSON for its scripts. Raises InputError without plotly and Jinja2."""
    with plotting("the page"):
        from markupsafe import Markup

        return _environment().get_template(name).render(data=Markup(inside_script(data.decode())), **values)


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    found = Environment(loader=FunctionLoader(_text), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    found.globals |= {
        "script": lambda name: _script(_text(name)),
        "plotly": lambda: _inside(get_plotlyjs()),
        "style": lambda name: Markup(_MAP.sub("", _text(name))),
        "colours": lambda: Markup(css()),
    }
    return found


def _script(text: str) -> Any:
    from markupsafe import Markup

    return Markup("<script>") + _inside(text) + Markup("</script>")


def _inside(text: str) -> Any:
    """A script in which nothing ends its element."""
    from markupsafe import Markup

    return Markup(_MAP.sub("", text).replace("</script", "<\\/script"))


def _text(name: str) -> str:
    return (resources.files(_FOLDER) / name).read_text(encoding="utf-8")
