"""OCI images, written, pulled and pushed without a container engine."""
