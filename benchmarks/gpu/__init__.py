"""Everything about the GPU kernels that needs a GPU: are they right, are their accesses, how fast are they.

    python -m benchmarks.gpu                  # parity, compute-sanitizer if it is installed, timings
    python -m benchmarks.gpu --quick          # fewer repetitions, no sanitizer

Opponents of score_tail, all on the same cached activations, each at its best number of candidates at a time:

eager        edited weights of a chunk of candidates, one batched product for each layer
compiled     the same under torch.compile
low-rank     (shift) one product with the unedited weights for all, and batched products of rank R on top
expand       (shift) x right^T and its product with left^T for each candidate, added to the unedited output:
             what servers of LoRA adapters do (L. Chen et al., "Punica", MLSys 2024; vLLM's shrink and expand)
"""
