"""The documentation site: `make docs` builds it into docs/_build/html."""

import sys
from pathlib import Path

import zoo

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project, author, copyright = "vae-zoo", "The vae-zoo founders", "the vae-zoo founders"  # noqa: A001 (Sphinx's name for it)
release = version = zoo.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "myst_nb",
    "sphinx_design",
    "sphinx_copybutton",
    "mathml",  # in _ext, as are the two below
    "pictures",
    "generated",
]
exclude_patterns = ["_build", "catalogue/_table.md"]
nitpicky = True
nitpick_ignore_regex = [  # what other libraries document, and types that are described in words
    (r"py:.*", r"(torch|pyro|numpy|np|xarray|pandas|pd|matplotlib|typer|dist|nn|poutine)\b.*"),
    (r"py:.*", r"(collections|typing|os|pathlib|dataclasses|annotated_types|concurrent)\..*"),
    (r"py:.*", r"[A-Z]\w*|.* .*"),
]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them as they are written; the arguments are described in words
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True

html_theme = "furo"
html_title = "vae-zoo"
html_static_path = ["_static"]
html_css_files = ["zoo.css"]
html_copy_source = html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "monokai"

copybutton_exclude = ".linenos, .gp, .go"
linkcheck_anchors = False
linkcheck_timeout = 20
