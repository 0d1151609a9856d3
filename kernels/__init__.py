"""Triton kernels for GPUs, one module per op.

Imported by :mod:`rledit.ops.triton_backend`, and only when a GPU (or Triton's interpreter, with
``TRITON_INTERPRET=1``) is to be used: nothing here is needed on a CPU.

``apply_lowrank``, ``score_tail`` and ``tally_logits`` are the three ops, ``population_linear`` is what a
suffix computes at a shifted Linear layer. ``counting`` is what the two that count share, ``edited`` the
weight tile that an edit makes, ``launch`` the choice of block sizes.
"""
