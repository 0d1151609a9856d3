"""Storage: atomic writes, safe reads, hashes of weights, and activations kept on disk."""
