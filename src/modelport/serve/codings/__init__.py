"""How bodies are compressed: one content coding of RFC 9110 §8.4 each."""
