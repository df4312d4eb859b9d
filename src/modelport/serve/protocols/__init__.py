"""How clients ask: bytes to tensors and back."""
