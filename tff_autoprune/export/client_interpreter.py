"""Trains a client file with `tflite-runtime`, as an app does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from tff_autoprune.errors import UserError
from tff_autoprune.export import interpreter


@dataclasses.dataclass(frozen=True)
class Step:
    """What a training step tells.

    Attributes:
      loss: Mean cross entropy over the batch's examples, before the step.
      correct: How many of them were classified rightly, before the step.
    """

    loss: float
    correct: int


class TFLiteClient:
    """A client file at work.

    Attributes:
      batch_size: The most examples of a step.
      image_shape: (height, width, channels) of the images that it takes.
      has_randomness: Whether a step takes a seed: the model has dropout.

    Example (one round of one client):

        client = TFLiteClient(content)
        client.set_weights(server_weights)
        for images, labels in batches:
            client.train(images, labels, learning_rate=0.05)
        update = client.get_weights()
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        """Loads a file.

        Args:
          content: What `convert_client` returned.
          threads: CPU threads.

        Raises:
          UserError: If the file is not a client.
        """
        self._interpreter = interpreter.make_interpreter(content, threads)
        found = set(self._interpreter.get_signature_list())
        expected = {"train", "infer", "get_weights", "set_weights"}
        if not expected <= found:
            raise UserError(
                f"client file: expected the signatures {', '.join(sorted(expected))}, found"
                f" {', '.join(sorted(found)) or 'none'}."
            )
        self._train, self._infer, self._get_weights, self._set_weights = (
            self._interpreter.get_signature_runner(name)
            for name in ("train", "infer", "get_weights", "set_weights")
        )
        inputs = self._train.get_input_details()
        self.batch_size, *shape = (int(size) for size in inputs["images"]["shape"])
        self.image_shape = tuple(shape)
        self.has_randomness = "seed" in inputs

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Sets all weights, by `weight_names`; the optimizer starts anew.

        Raises:
          UserError: If a weight is missing, unknown or of another shape.
        """
        details = self._set_weights.get_input_details()
        wanted = {name: tuple(entry["shape"]) for name, entry in details.items()}
        found = {name: np.shape(value) for name, value in weights.items()}
        wrong = [n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n)]
        if wrong:
            name = sorted(wrong)[0]
            raise UserError(
                f"client weights: expected {name!r} of shape {wanted.get(name, 'none')}, found"
                f" {found.get(name, 'none')}."
            )
        self._set_weights(**{n: np.asarray(v, details[n]["dtype"]) for n, v in weights.items()})

    def get_weights(self) -> dict[str, np.ndarray]:
        """Returns all weights, by `weight_names`."""
        return {name: np.array(value) for name, value in self._get_weights().items()}

    def train(
        self, images: np.ndarray, labels: np.ndarray, learning_rate: float, seed: int = 0
    ) -> Step:
        """Does one step.

        Args:
          images: float32 [n, height, width, channels], n <= `batch_size`.
          labels: int [n].
          learning_rate: Of the step.
          seed: Of dropout; another one for each step.

        Raises:
          UserError: If there are no examples, or more than fit.
        """
        count = len(labels)
        if not 0 < count <= self.batch_size:
            raise UserError(f"client: expected 1 to {self.batch_size} examples, found {count}.")
        padding = self.batch_size - count
        inputs = {
            "images": np.pad(np.asarray(images, np.float32), [(0, padding)] + [(0, 0)] * 3),
            "labels": np.pad(np.asarray(labels, np.int32), (0, padding)),
            "mask": (np.arange(self.batch_size) < count).astype(np.float32),
            "learning_rate": np.float32(learning_rate),
        }
        if self.has_randomness:
            inputs["seed"] = np.int32(seed)
        result = self._train(**inputs)
        return Step(loss=float(result["loss"]), correct=int(result["correct"]))

    def infer(self, image: np.ndarray) -> np.ndarray:
        """Returns the probabilities float32 [classes] of one image [height, width, channels]."""
        image = np.asarray(image, np.float32)[np.newaxis]
        return np.array(self._infer(images=image)["probabilities"][0])
