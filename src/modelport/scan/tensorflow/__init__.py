"""TensorFlow graphs: what running one would do beyond computing."""
