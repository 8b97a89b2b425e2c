"""Pages and Markdown from the templates beside this file.

HTML escapes every text; a name that a template gets wrong is an error.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tell_lightning import __version__


def render(template: str, **values: Any) -> str:
    """Fill a template."""
    environment = Environment(
        loader=PackageLoader("tell_lightning.report"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plain"] = plain
    return environment.get_template(template).render(version=__version__, **values)


def plain(text: str) -> str:
    r"""Keep a text of Markdown on its line, in its cell and out of HTML.

    >>> print(plain("a | b  <c>"))
    a \| b &lt;c>
    """
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
