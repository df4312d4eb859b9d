"""What the targets on Kubernetes are made of: objects, charts, calls, states."""
