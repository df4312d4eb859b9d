"""Files, forms and images as requests: what the adapters that take them share."""
