"""Archives and folders in which a model lies."""
