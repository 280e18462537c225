"""``python -m counterfactual_probe``: the command line, where its command is on no path."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
