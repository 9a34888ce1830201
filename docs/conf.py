"""Sphinx configuration of the documentation: ``python -m sphinx -W docs OUT``; it needs no network."""

import sys
import warnings
from pathlib import Path

from condensekit import __version__

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # _extensions; benchmarks
warnings.filterwarnings("ignore", "no QP solver found")  # the import of Avalanche

project = "condensekit"
author = "The condensekit developers"
copyright = author
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "_extensions.tables",
    "_extensions.included",
    "_extensions.reference",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
html_math_renderer = "mathml"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"condensekit {release}"
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "source_repository": "https://github.com/condensekit/condensekit/",
    "source_branch": "main",
    "source_directory": "docs/",
}
