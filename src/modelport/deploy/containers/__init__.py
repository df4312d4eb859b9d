"""What runs beside the server in containers: Dockerfile, TLS front, monitoring."""
