"""Triton kernels for GPUs. None is written yet: on GPU tensors the ops run their reference in PyTorch."""
