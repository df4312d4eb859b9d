"""From a package to a service: one request path for every protocol."""
