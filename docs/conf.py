"""Sphinx configuration for `make site`: the repository's own Markdown, and the reference from docstrings."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import counterfactual_probe

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from site_extension import import_types  # noqa: E402  # in this folder

import_types()

project = "counterfactual-probe"
author = "The counterfactual-probe developers"
release = version = counterfactual_probe.__version__

# The sources are the repository's files, so that the links between them work on the site as well.
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "benchmarks/RESULTS.md",
    "examples/*",
    "examples/space/live/app.py",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
exclude_patterns = ["docs/*.py", "docs/tutorials/notebooks"]  # notebooks: made from the pages beside them
extensions = [
    "myst_nb",  # MyST, and pages that are notebooks: the tutorials
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxarg.ext",
    "sphinx_llms_txt",
    "site_extension",
]
nitpicky = True  # a broken reference is a warning, and warnings are errors
language = "en"
smartquotes = False  # "--option" stays as it is typed

myst_heading_anchors = 3

# The tutorials are executed while the site is built, and an error in one is an error of the site.
nb_execution_mode = "auto"
os.environ["REPOSITORY"] = str(HERE.parent)  # for the page that draws the history of the benchmarks
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_in_temp = True
nb_merge_streams = True
nb_number_source_lines = False

autodoc_member_order = "bysource"
autodoc_default_options = {
    "inherited-members": "object,Module,dict,Mapping,Exception",
    "exclude-members": "SHAPES, PROVENANCE",  # of files, which no user writes by hand
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_type_aliases = {name: name for name in ("Array", "Floats", "Labels")}  # of properties
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes as a list, instead of an entry with a line for the type of each

html_theme = "furo"
html_title = "counterfactual-probe"
html_static_path = ["site"]
html_css_files = ["site.css"]
html_extra_path = ["site/index.html"]
html_show_copyright = False
html_show_sphinx = False
html_baseurl = "https://counterfactual-probe.github.io/counterfactual-probe/"
html_copy_source = True  # as Markdown, for those who read by machine: llms.txt lists all pages
html_show_sourcelink = False
html_domain_indices = False  # of modules, one long line each: the reference lists what is public
llms_txt_title = "counterfactual-probe"
llms_txt_summary = (
    "A Python library that takes pretrained image generators apart: hybrids, influence maps and modules of any "
    "torch.nn.Module that makes images."
)
highlight_language = "text"  # for blocks that name no language; examples in docstrings are still Python
pygments_style = "friendly"
pygments_dark_style = "monokai"
