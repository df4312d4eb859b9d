"""PyTorch: modules, programs of ``torch.export``, TorchScript, and weights with a factory."""

from modelport.convert.frameworks.torch.model import TorchFramework

__all__ = ["TorchFramework"]
