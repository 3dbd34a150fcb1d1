"""Ready-made tasks, the user's own by name, and the training loop that records checkpoints.

`make_task` chooses a task for a data set, `train` trains it and records checkpoints, `find_checkpoints` takes
weights that others trained, `load_checkpoint` puts either into a model.
"""

from __future__ import annotations

from gradstore.models.autoencoder import Autoencoder
from gradstore.models.checkpoints import Checkpoint, find_checkpoints, load_checkpoint, save_checkpoint
from gradstore.models.classifier import Classifier
from gradstore.models.registry import make_task, task_from_settings, task_settings
from gradstore.models.scaling import InputScaling
from gradstore.models.training import TrainingProgress, TrainingSettings, train
from gradstore.models.user_task import load_task
from gradstore.models.vae import VAE

__all__ = [
    "VAE",
    "Autoencoder",
    "Checkpoint",
    "Classifier",
    "InputScaling",
    "TrainingProgress",
    "TrainingSettings",
    "find_checkpoints",
    "load_checkpoint",
    "load_task",
    "make_task",
    "save_checkpoint",
    "task_from_settings",
    "task_settings",
    "train",
]
