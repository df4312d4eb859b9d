"""What only PyTorch files hold: TorchScript code, and the documents of exported programs."""
