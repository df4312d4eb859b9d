"""TensorFlow Serving: what its REST and gRPC adapters, and those that borrow its JSON, share."""
