"""From a source model to an artifact that gives the same answers."""
