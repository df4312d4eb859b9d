"""How endpoints are reached that plain HTTP with an API key cannot: one file for each SDK."""
