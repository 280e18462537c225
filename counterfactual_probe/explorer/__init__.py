"""The explorer: a page on which modules and channels of a generator are set by hand, and what comes of it is seen."""
