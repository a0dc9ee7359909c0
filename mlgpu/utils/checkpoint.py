"""Activation checkpointing under PyTorch's module path (see `mlgpu.autograd.checkpoint`)."""

from mlgpu.autograd.checkpoint import checkpoint, checkpoint_sequential

__all__ = ["checkpoint", "checkpoint_sequential"]
