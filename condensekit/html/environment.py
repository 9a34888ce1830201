"""Environment: templates in which every value is escaped, and the style sheet of all pieces."""

from __future__ import annotations

import functools
import re
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from condensekit.errors import printable

LONGEST = 1000  # characters of a value; a longer one is cut
PACKAGES = ("condensekit.html", "condensekit.report")  # those with a folder ``templates``


def render(template: str, **values: Any) -> Markup:
    """A template of :data:`PACKAGES` with its values; text in them is escaped, control characters as well."""
    return Markup(_environment().get_template(template).render(values))


def style() -> Markup:
    """The style sheet of all pieces; it holds for elements inside one of the class ``ck``."""
    return render("style.css")


def standalone(*pieces: Markup | str) -> Markup:
    """Pieces with their style sheet, for a notebook."""
    return Markup('<div class="ck"><style>{}</style>{}</div>').format(style(), Markup("\n").join(pieces))


@functools.cache
def _environment() -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(name) for name in PACKAGES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def shown(value: Any) -> Any:
    """A value as a page shows it: nothing for None, a long one cut, no control characters."""
    if value is None:
        return ""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"(?<=\d) %", "\u00a0%", printable(value))  # a number keeps its unit in its line
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text):,} characters)"
