"""Storage: atomic writes, safe reads, fingerprints of weights, and activations kept on disk."""

from .atomic import TEMPORARY_SUFFIX, Staged, WriteError, replacing, write_bytes, write_error
from .cache import cache_folder, cached, user_cache
from .files import write_json, write_text
from .fingerprint import fingerprint, fingerprints
from .plain import Json, plain_json
from .tensors import StoredTensor, TensorFile, read_tensors, write_tensors

__all__ = [
    "TEMPORARY_SUFFIX",
    "Json",
    "Staged",
    "StoredTensor",
    "TensorFile",
    "WriteError",
    "cache_folder",
    "cached",
    "fingerprint",
    "fingerprints",
    "plain_json",
    "read_tensors",
    "replacing",
    "user_cache",
    "write_bytes",
    "write_error",
    "write_json",
    "write_tensors",
    "write_text",
]
