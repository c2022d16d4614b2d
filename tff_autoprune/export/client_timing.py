"""Times training steps on this host: client files, and TensorFlow's own step beside them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Hashable, Mapping

import numpy as np
import tensorflow as tf

from tff_autoprune.export.client_interpreter import TFLiteClient
from tff_autoprune.federated import losses, outputs

_WARM_UP = 2

Step = Callable[[], object]


def tflite_step(content: bytes, classes: int, threads: int = 1) -> Step:
    """Returns what does one step of a client file, on a full batch of random images."""
    client = TFLiteClient(content, threads)
    images, labels = _batch((client.batch_size, *client.image_shape), classes)
    return lambda: client.train(images, labels, learning_rate=1e-3)


def tensorflow_step(model: tf.keras.Model, batch_size: int) -> Step:
    """Returns what does one step of SGD in a `tf.function`, on a batch of random images.

    Args:
      model: Its weights are changed.
      batch_size: Examples of a step.
    """
    from_logits = outputs.outputs_logits(model)
    images, labels = _batch((batch_size, *model.input_shape[1:]), model.output_shape[-1])
    batch = tf.constant(images), tf.constant(labels)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            scores = model(images, training=True)
            of_examples = losses.cross_entropy(scores, labels, from_logits=from_logits)
            loss = tf.reduce_mean(of_examples)
        gradients = tape.gradient(loss, model.trainable_variables)
        for variable, gradient in zip(model.trainable_variables, gradients):
            variable.assign_sub(1e-3 * gradient)
        return loss

    return lambda: step(*batch).numpy()


def measure(
    contenders: Mapping[Hashable, Step], rounds: int = 11, steps: int = 5
) -> dict[Hashable, dict[str, float]]:
    """Times contenders in turn, so that whatever else the host does hits all of them alike.

    Args:
      contenders: What does one step, by name.
      rounds: In each, every contender does some steps; the order is reversed from one to the next.
      steps: Of each contender in a round.

    Returns:
      {NAME: {"step_ms": median over rounds, "step_ms_min", "step_cpu_ms": median of the time on
      cores, "rounds", "steps"}}.
    """
    times: dict[Hashable, list[float]] = {name: [] for name in contenders}
    cpu_times: dict[Hashable, list[float]] = {name: [] for name in contenders}
    for step in contenders.values():
        for _ in range(_WARM_UP):
            step()
    order = list(contenders)
    for _ in range(rounds):
        for name in order:
            start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(steps):
                contenders[name]()
            times[name].append(1e3 * (time.perf_counter() - start) / steps)
            cpu_times[name].append(1e3 * (time.process_time() - cpu_start) / steps)
        order.reverse()
    return {
        name: {
            "step_ms": statistics.median(values),
            "step_ms_min": min(values),
            "step_cpu_ms": statistics.median(cpu_times[name]),
            "rounds": rounds,
            "steps": steps,
        }
        for name, values in times.items()
    }


def _batch(shape: tuple[int, ...], classes: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, classes, shape[0]).astype(np.int32)
    return generator.random(shape, np.float32), labels
