"""The networks of the demos and tables. Any other ``nn.Module`` can be edited just as well."""

from __future__ import annotations

from ..._moved import renamed
from .bag_of_words import Vocabulary
from .bert import BertLayer, LastBlock
from .encoder import SentenceEncoder
from .mnist_cnn import MnistCNN
from .registry import NAMES, build, normalize
from .resnet_cifar import ResNetCIFAR
from .sequence_classifier import SequenceClassifier
from .toxicity import HEAD_HYPERPARAMETERS, MLP_HYPERPARAMETERS, ToxicityHead, ToxicityMLP

__all__ = [
    "HEAD_HYPERPARAMETERS",
    "MLP_HYPERPARAMETERS",
    "NAMES",
    "BertLayer",
    "LastBlock",
    "MnistCNN",
    "ResNetCIFAR",
    "SentenceEncoder",
    "SequenceClassifier",
    "ToxicityHead",
    "ToxicityMLP",
    "Vocabulary",
    "build",
    "normalize",
]


def __getattr__(name: str) -> object:
    return renamed(__name__, name)
