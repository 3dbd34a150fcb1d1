"""Five models that people train, small enough for a test and real enough for a benchmark.

| name | model | tracked | parameters tracked |
|---|---|---|---|
| `ae` | convolutional autoencoder, 28 x 28 | encoder | 43,428 |
| `vae` | convolutional VAE, 32 x 32 | encoder | 235,636 |
| `lstm` | LSTM autoencoder, 140 steps | encoder | 50,432 |
| `transformer` | masked-token transformer encoder, 64 tokens | all | 3,192,128 |
| `resnet` | ResNet-18, 32 x 32, BatchNorm in eval mode | all | 11,173,962 |

Their inputs have structure and are made from a seed. `tests/benchmarks/gradients.py` times the engine on them.
"""

from __future__ import annotations

from gradstore.testing.models.benchmark import BENCHMARKS, Benchmark
from gradstore.testing.models.convolutional import ConvAutoencoder, ConvVAE
from gradstore.testing.models.resnet import ResNet18
from gradstore.testing.models.sequences import LSTMAutoencoder, TokenTransformer

__all__ = ["BENCHMARKS", "Benchmark", "ConvAutoencoder", "ConvVAE", "LSTMAutoencoder", "ResNet18", "TokenTransformer"]
