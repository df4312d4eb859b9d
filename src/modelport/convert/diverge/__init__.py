"""Where and why an export parts from its source model."""
