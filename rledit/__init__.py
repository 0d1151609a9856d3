"""Edit pretrained neural networks by reinforcement learning."""

__version__ = "0.1.0"
