"""Triton kernels for GPUs, one module per op.

:mod:`rledit.ops.triton_backend` imports them when a GPU (or Triton's interpreter, with
``TRITON_INTERPRET=1``) is first used; nothing here is needed on a CPU.

``apply_lowrank``, ``score_tail`` and ``tally_logits`` are the ops that have kernels; ``population_linear`` is
what a suffix computes at a shifted Linear layer. ``counting`` is shared by the two ops that count, ``edited``
forms tiles of edited weights, ``launch`` chooses block sizes.
"""
