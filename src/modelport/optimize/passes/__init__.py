"""One way to make a model smaller or faster per file."""
