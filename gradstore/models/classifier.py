"""The classifier: labelled data of any shape; its latent is what the last layer sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gradstore.errors import MissingLabelsError
from gradstore.models.body import encoder_body, is_image
from gradstore.models.scaling import InputScaling
from gradstore.models.shape import check_sizes
from gradstore.task import Batch, Noise, Task

# From this side on a convolution pays: an MLP sees no two neighbouring pixels as neighbours.
_MIN_CONVOLVED_SIDE = 16


@dataclass(frozen=True, kw_only=True)
class Classifier(Task):
    """Softmax classifier: loss = -log p(label | x), in nats; a small CNN for images of 16x16 and more, else an MLP."""

    needs_labels: ClassVar[bool] = True

    example_shape: tuple[int, ...]
    "Shape of one example; images are channels first: (C, H, W)."
    n_classes: int
    "Number of classes."
    width: int = 128
    "Units of the last hidden layer, which is the latent."

    def __post_init__(self) -> None:
        check_sizes(self.example_shape, n_classes=self.n_classes, width=self.width)

    def build(self) -> ClassifierModel:
        return ClassifierModel(self.example_shape, self.n_classes, self.width)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        if batch.labels is None:
            raise MissingLabelsError(
                "The classifier learns from labels and this data has none. "
                "Pass --labels FILE, put each class in a folder of its own, or use --model vae, which needs none."
            )
        return functional.cross_entropy(model(batch.inputs), batch.labels, reduction="none")

    def predict(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example n_classes"]:
        logits: Tensor = model(batch.inputs)
        return logits

    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        classifier = cast(ClassifierModel, model)
        features: Tensor = classifier.encoder(classifier.scaling(batch.inputs))
        return features


class ClassifierModel(nn.Module):
    """Scaling, encoder and head; called on inputs it returns logits."""

    def __init__(self, example_shape: tuple[int, ...], n_classes: int, width: int) -> None:
        super().__init__()
        self.scaling = InputScaling(example_shape)
        self.encoder = encoder_body(example_shape, width, convolutional=is_image(example_shape, _MIN_CONVOLVED_SIDE))
        self.head = nn.Linear(width, n_classes)

    def forward(self, inputs: Tensor) -> Float[Tensor, "example n_classes"]:
        logits: Tensor = self.head(self.encoder(self.scaling(inputs)))
        return logits
