"""Values and rules that every other part shares; NumPy only."""
