"""The explorer inside another program's page, such as Gradio's: a script, and the function that answers it."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from ...base.errors import ProbeError
from ..bundle import embedded, style, value
from .requests import Answers


class Embedding:
    """What another program's page needs to show an explorer.

    >>> embedding = cp.explore(gen).embedding()  # doctest: +SKIP
    >>> script = f"({embedding.script})(element, (request) => server.answer(request))"  # doctest: +SKIP

    Attributes:
        script: JavaScript, an expression: a function of an element to fill, and of a function that sends a request
            (text of JSON) to Python's :meth:`answer` and gives a promise of what that returns.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.script = (
            f"(el, ask) => ({value('embedded.js')}).embed({{ el, contents: {embedded(answers.page())}, "
            f"style: {json.dumps(style())}, ask: async (request) => JSON.parse(await ask(JSON.stringify(request))) }})"
        )

    def answer(self, request: str) -> str:
        """The pixels that a request of the page asks for, or what is wrong with it, as text of JSON."""
        start = time.perf_counter()
        try:
            given: Any = json.loads(request)
            asked = {name: given[name] for name in ("kind", "sample", "recipe") if name in given}
            pixels = self._answers.pixels(asked).numpy().astype("<f4").tobytes()
        except ProbeError as error:
            return json.dumps({"error": str(error)})
        except (ValueError, TypeError, RecursionError):
            return json.dumps({"error": "the request is no JSON"})
        milliseconds = 1000 * (time.perf_counter() - start)
        return json.dumps({"pixels": base64.b64encode(pixels).decode(), "milliseconds": milliseconds})
