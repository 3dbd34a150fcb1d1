"""The ready-made tasks: the contract of every Task, and their losses against float64 formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from gradstore.errors import MissingLabelsError, TaskError
from gradstore.gradients import GradientEngine
from gradstore.models import VAE, Autoencoder, Classifier
from gradstore.models.vae import kl_from_standard_normal
from gradstore.task import Batch, Noise, Task, tracked_parameters
from gradstore.testing.task_kit import TaskContract
from gradstore.testing.toys import batch_of

SMALL = (1, 8, 8)
LARGE = (3, 41, 38)


def batch(shape: tuple[int, ...], n_examples: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(n_examples, *shape, generator=generator)
    return batch_of(inputs, torch.arange(n_examples) % 3)


class TestVAE(TaskContract):
    def task(self) -> Task:
        return VAE(example_shape=SMALL, width=32)

    def batch(self) -> Batch:
        return batch(SMALL)


class TestConvolutionalVAE(TaskContract):
    def task(self) -> Task:
        return VAE(example_shape=LARGE, width=32, beta=2.0)

    def batch(self) -> Batch:
        return batch(LARGE)


class TestGaussianVAE(TaskContract):
    def task(self) -> Task:
        return VAE(example_shape=(7,), width=32, likelihood="gaussian")

    def batch(self) -> Batch:
        return batch((7,))


class TestAutoencoder(TaskContract):
    def task(self) -> Task:
        return Autoencoder(example_shape=SMALL, width=32)

    def batch(self) -> Batch:
        return batch(SMALL)


class TestMaskingAutoencoder(TaskContract):
    def task(self) -> Task:
        return Autoencoder(example_shape=(5, 4), width=32, corruption="masking", noise_level=0.3, likelihood="gaussian")

    def batch(self) -> Batch:
        return batch((5, 4))


class TestClassifier(TaskContract):
    def task(self) -> Task:
        return Classifier(example_shape=SMALL, n_classes=3, width=32)

    def batch(self) -> Batch:
        return batch(SMALL)


class TestConvolutionalClassifier(TaskContract):
    def task(self) -> Task:
        return Classifier(example_shape=(1, 17, 30), n_classes=3, width=32)

    def batch(self) -> Batch:
        return batch((1, 17, 30))


READY_MADE = [
    VAE(example_shape=SMALL, width=32),
    VAE(example_shape=LARGE, width=32),
    Autoencoder(example_shape=SMALL, width=32),
    Autoencoder(example_shape=LARGE, width=32),
    Classifier(example_shape=LARGE, n_classes=3, width=32),
]


@pytest.mark.parametrize("task", READY_MADE, ids=str)
def test_every_parameter_takes_a_rule_of_the_engine(task: Task) -> None:
    engine = GradientEngine(task, task.build(), "all", d_sketch=16, seed=0)
    coverage = engine.prepare(batch(task.example_shape, 2))  # type: ignore[attr-defined]
    assert {route.how for route in coverage.routes} == {"rule"}


@pytest.mark.parametrize("task", READY_MADE, ids=str)
def test_training_mode_changes_nothing(task: Task) -> None:
    model, examples = task.build(), batch(task.example_shape)  # type: ignore[attr-defined]
    losses = [task.loss(model.train(mode), examples, Noise(examples.keys, 0)) for mode in (True, False)]
    torch.testing.assert_close(*losses, rtol=0, atol=0)


def test_the_vae_loss_is_the_negative_elbo() -> None:
    task, examples = VAE(example_shape=SMALL, width=32, beta=0.5), batch(SMALL)
    model = task.build().double()
    noise = Noise(examples.keys, 5)
    mean, log_variance = model.encoder(examples.inputs.double())
    latent = mean + torch.exp(log_variance / 2) * noise.normal(16)
    x, p = examples.inputs.double().flatten(1), torch.sigmoid(model.decoder(latent)).flatten(1)
    expected = -(x * p.log() + (1 - x) * (1 - p).log()).sum(1)
    posterior = torch.distributions.Normal(mean, torch.exp(log_variance / 2))
    prior = torch.distributions.Normal(torch.zeros(16), torch.ones(16))
    expected += 0.5 * torch.distributions.kl_divergence(posterior, prior).sum(1)
    torch.testing.assert_close(task.loss(model, examples, noise), expected, rtol=1e-12, atol=0)


def gaussian_losses(inputs: Tensor, means: Tensor) -> Tensor:
    density = norm.logpdf(inputs.double().numpy(), means.detach().double().numpy(), 1.0)
    return torch.from_numpy(-np.asarray(density).sum(1))


def test_the_gaussian_likelihood_is_a_normalised_density() -> None:
    task = Autoencoder(example_shape=(7,), width=32, likelihood="gaussian", noise_level=0.0)
    model, examples = task.build().double(), batch((7,))
    expected = gaussian_losses(examples.inputs, model(examples.inputs))
    losses = task.loss(model, examples, Noise(examples.keys, 0)).detach()
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=0)


def test_the_kl_is_zero_at_the_prior_and_stays_finite_far_away() -> None:
    assert float(kl_from_standard_normal(torch.zeros(1, 4), torch.zeros(1, 4))) == 0.0
    task = VAE(example_shape=SMALL, width=32)
    examples = replace(batch(SMALL), inputs=batch(SMALL).inputs * 1e6)
    assert bool(torch.isfinite(task.loss(task.build(), examples, Noise(examples.keys, 0))).all())


def test_the_error_of_the_vae_loss_falls_with_the_root_of_the_draws() -> None:
    task, one = VAE(example_shape=SMALL, width=32), batch(SMALL, 1)
    draws = Batch(one.inputs.expand(4096, *SMALL), None, torch.arange(4096))  # another key is another draw
    losses = task.loss(task.build(), draws, Noise(draws.keys, 0)).detach()
    few, many = (losses.reshape(-1, m).mean(1).std() for m in (4, 64))
    assert float(few / many) == pytest.approx(4.0, rel=0.3)  # 64 means of 64 draws: their spread is known to 9 %


def corrupted(task: Autoencoder, inputs: Tensor) -> Tensor:
    return task._corrupted(inputs, Noise(batch_of(inputs).keys, 0))


def test_gaussian_corruption_has_the_asked_for_spread() -> None:
    inputs = torch.zeros(50, 100)
    spread = float(corrupted(Autoencoder(example_shape=(100,), noise_level=0.25), inputs).std())
    assert spread == pytest.approx(0.25, rel=0.05)  # 5,000 values: 1 % is one standard error


def test_masking_sets_the_asked_for_share_to_zero_and_leaves_the_rest() -> None:
    inputs = torch.rand(50, 100) + 1.0
    masked = corrupted(Autoencoder(example_shape=(100,), corruption="masking", noise_level=0.25), inputs)
    assert float((masked == 0).double().mean()) == pytest.approx(0.25, abs=0.03)
    assert torch.equal(masked[masked != 0], inputs[masked != 0])


def test_the_autoencoder_is_judged_by_the_clean_example() -> None:
    task = Autoencoder(example_shape=(6,), width=8, likelihood="gaussian", noise_level=5.0)
    model, examples = task.build(), batch((6,))
    torch.nn.init.zeros_(model.get_parameter("decoder.2.weight"))  # now the code, and so the noise, has no say
    expected = gaussian_losses(examples.inputs, model(examples.inputs)).float()
    torch.testing.assert_close(task.loss(model, examples, Noise(examples.keys, 0)).detach(), expected)


def test_the_classifier_loss_is_the_cross_entropy() -> None:
    task, examples = Classifier(example_shape=SMALL, n_classes=3, width=32), batch(SMALL)
    model = task.build().double()
    logits = model(examples.inputs).detach().numpy()
    labels = np.asarray(examples.labels)
    expected = np.log(np.exp(logits).sum(1)) - logits[np.arange(3), labels]
    np.testing.assert_allclose(task.loss(model, examples, Noise(examples.keys, 0)).detach(), expected, rtol=1e-12)


def test_the_classifier_head_is_not_part_of_its_encoder() -> None:
    task = Classifier(example_shape=SMALL, n_classes=3)
    model = task.build()
    left_out = set(dict(model.named_parameters())) - set(tracked_parameters(task, model, "encoder"))
    assert left_out == {"head.weight", "head.bias"}


def test_the_vae_encoder_includes_both_of_its_heads() -> None:
    task = VAE(example_shape=SMALL)
    tracked = tracked_parameters(task, task.build(), "encoder")
    assert {"encoder.mean.weight", "encoder.log_variance.bias"} <= set(tracked)
    assert not any(name.startswith("decoder") for name in tracked)


def test_a_classifier_without_labels_says_what_to_do() -> None:
    task, examples = Classifier(example_shape=SMALL, n_classes=3), replace(batch(SMALL), labels=None)
    with pytest.raises(MissingLabelsError, match=r"--labels FILE.*--model vae"):
        task.loss(task.build(), examples, Noise(examples.keys, 0))


def test_impossible_sizes_are_refused_by_name() -> None:
    with pytest.raises(TaskError, match="d_latent=0"):
        VAE(example_shape=SMALL, d_latent=0)
    with pytest.raises(TaskError, match=r"example_shape=\(\)"):
        VAE(example_shape=())
    with pytest.raises(TaskError, match=r"noise_level=1.0 .* masking"):
        Autoencoder(example_shape=SMALL, corruption="masking", noise_level=1.0)
