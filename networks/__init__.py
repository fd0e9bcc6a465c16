"""Networks from observations to features: contract, encoders, memory cores, builds by name."""

from seqrl.networks.attention import Attention
from seqrl.networks.autoencoder import VAE, AutoEncoder
from seqrl.networks.base import Encoder, Network, as_network
from seqrl.networks.bidirectional import Bidirectional
from seqrl.networks.build import NETWORKS, build
from seqrl.networks.cnn import CNN, conv_size, is_image
from seqrl.networks.contract import probe
from seqrl.networks.diagnosis.check import check_network
from seqrl.networks.encoders import encoder
from seqrl.networks.mlp import MLP
from seqrl.networks.normalize import Normalize
from seqrl.networks.normalized import Normalized, normalized_space
from seqrl.networks.options import activation, initialise
from seqrl.networks.plain.numpy_forward import NumpyForward, numpy_forward
from seqrl.networks.recurrent import GRU, LSTM, RNN
from seqrl.networks.sequences.causal_lm import CausalLM
from seqrl.networks.sequences.hred import HRED
from seqrl.networks.sequences.memory_network import MemoryNetwork
from seqrl.networks.sequences.seq2seq import Seq2Seq
from seqrl.networks.sequences.tree import Tree
from seqrl.networks.sequences.vhred import VHRED
from seqrl.networks.sequences.word2vec import Word2Vec
from seqrl.networks.stack import FrameStack
from seqrl.networks.tokens import Tokens
from seqrl.networks.vectors import Embedding, flat

__all__ = [
    "CNN",
    "GRU",
    "HRED",
    "LSTM",
    "MLP",
    "NETWORKS",
    "RNN",
    "VAE",
    "VHRED",
    "Attention",
    "AutoEncoder",
    "Bidirectional",
    "CausalLM",
    "Embedding",
    "Encoder",
    "FrameStack",
    "MemoryNetwork",
    "Network",
    "Normalize",
    "Normalized",
    "NumpyForward",
    "Seq2Seq",
    "Tokens",
    "Tree",
    "Word2Vec",
    "activation",
    "as_network",
    "build",
    "check_network",
    "conv_size",
    "encoder",
    "flat",
    "initialise",
    "is_image",
    "normalized_space",
    "numpy_forward",
    "probe",
]
