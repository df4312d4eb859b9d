"""Archives and folders, read into memory with bounds."""
