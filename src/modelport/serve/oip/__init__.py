"""Open Inference V2: what its REST and gRPC adapters share."""
