"""Entries of the reference: each public object once, under its public name; formulas as MathML."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment
    from sphinx.writers.html5 import HTML5Translator

PACKAGES = ("condensekit", "condensekit.replay", "condensekit.nas")


@functools.cache
def public_names() -> dict[str, str]:
    """The public name of each object that is defined elsewhere, by its name where it is defined."""
    packages = {package: importlib.import_module(package) for package in PACKAGES}
    found = {
        f"{package}.{name}": getattr(module, name) for package, module in packages.items() for name in module.__all__
    }
    return {f"{o.__module__}.{o.__qualname__}": name for name, o in found.items() if hasattr(o, "__qualname__")}


def once(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave a public object out of the page of its module: it has its entry under the public name."""
    own = f"{getattr(obj, '__module__', '')}.{getattr(obj, '__qualname__', '')}"
    return True if what == "module" and own in public_names() else None


def by_public_name(
    app: Sphinx, env: BuildEnvironment, node: nodes.Element, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a reference to an object where it is defined by its entry under the public name."""
    target = node.get("reftarget", "")
    public = next(
        (name + target.removeprefix(own) for own, name in public_names().items() if f"{target}.".startswith(f"{own}.")),
        None,
    )
    entries = env.domains.python_domain.objects
    if public not in entries:
        return None
    return make_refnode(app.builder, node["refdoc"], entries[public].docname, public, content, public)


def mathml(translator: HTML5Translator, node: nodes.Element) -> None:
    """Write a formula as MathML, which browsers show without a script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    tag = "div" if block else "span"
    translator.body.append(translator.starttag(node, tag, "", CLASS="math"))
    translator.body.append(str(tex2mathml(node.astext(), as_block=block)))
    translator.body.append(f"</{tag}>")
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the events and the renderer of formulas."""
    app.connect("autodoc-skip-member", once)
    app.connect("missing-reference", by_public_name)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
