"""How a thing shows itself: one description of it, which text, HTML and reports are made from."""
