"""Nothing is loaded before it is scanned."""
