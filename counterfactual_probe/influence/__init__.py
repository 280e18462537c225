"""Where in the image channels act: influence maps and their standard errors."""
