"""Text from outside in Markdown files: model cards."""

from __future__ import annotations

import re

from ..errors import visible

# Letters that start markup wherever they stand, with "_" at the edge of a word, where alone it does.
_MARKUP = re.compile(r"[\\`*#\[\]<>&|~!$]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^(\d*)(?=[+=.)-])")


def escaped(text: str) -> str:
    r"""The text as one line that means nothing in Markdown or HTML.

    >>> print(escaped("<b>my_data</b>\n# 1"))
    \<b\>my_data\</b\> \# 1
    """
    line = visible(" ".join(text.split()))
    return _LINE_START.sub(r"\1\\", _MARKUP.sub(r"\\\g<0>", line))


def code_block(text: str) -> str:
    """The text as a block of code, which none of its lines ends.

    >>> print(code_block("make demo"))
    ```
    make demo
    ```
    """
    longest = max(map(len, re.findall("`{3,}", text)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}\n{visible(text)}\n{fence}"
