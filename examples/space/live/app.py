"""The explorer of a generator as a Gradio app that computes: python examples/space/live/app.py --generator dcgan-faces

To make a Space of it, copy this folder there: README.md and requirements.txt are the Space's. Maps and modules are
computed when the app starts (half a minute on one core for the default generator), hybrids when they are asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import gradio as gr

import counterfactual_probe as cp


def app(generator: str, *, n_pairs: int = 64) -> gr.Blocks:
    """The page, in one component of Gradio, whose script asks ``answer`` for every image."""
    explorer = cp.explore(cp.load(generator), n_pairs=n_pairs, show_progress=True)
    embedding = explorer.embedding()

    def answer(request: str) -> str:
        return embedding.answer(request)

    with gr.Blocks(title=f"{generator} – explorer") as blocks:
        gr.HTML(
            html_template="<div class='place'></div>",
            js_on_load=f"({embedding.script})(element.querySelector('.place'), (request) => server.answer(request));",
            server_functions=[answer],
            apply_default_css=False,
        )
    return blocks


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", default="dcgan-faces-small", help="a name that counterfactual-probe list shows")
    parser.add_argument("--pairs", type=int, default=64, help="pairs of latents per map")
    parser.add_argument("--port", type=int, help="default: Gradio's")
    options = parser.parse_args(arguments)
    app(options.generator, n_pairs=options.pairs).launch(server_port=options.port)


if __name__ == "__main__":
    main()
