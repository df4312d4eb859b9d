"""From an artifact to a package folder."""
