"""The demo: the story of one question, driven as its users would drive it, over HTTP alone."""
