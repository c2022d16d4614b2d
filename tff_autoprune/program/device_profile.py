"""Latency of a smaller network on a phone, estimated from a profile of the dense model.

    python -m android_bench run --model=dense.float32.tflite --delegate=cpu --threads=1 --profile

writes the time of each operator into `result.json`. The time of a layer is taken to fall with its
operations (with the bytes that it writes, if it computes nothing), and what belongs to no layer
stays. The sum is scaled to the latency measured without the profiler.

Profiles in which a delegate hides the layers, as XNNPACK's does, cannot be used.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tff_autoprune import surgery
from tff_autoprune.errors import UserError
from tff_autoprune.search.budget import Budget
from tff_autoprune.search.counted_cost import CostWeights
from tff_autoprune.surgery import cost

if TYPE_CHECKING:
    import tensorflow as tf

# The share of the time that must belong to layers of the model.
_LEAST_ATTRIBUTED = 0.5


@dataclasses.dataclass(frozen=True)
class DeviceProfile:
    """What layers of a model cost on a device.

    Attributes:
      ms_per_work: Milliseconds for each unit of a layer's work (`_work`), by layer.
      rest_ms: Milliseconds that no layer accounts for.
    """

    ms_per_work: Mapping[str, float]
    rest_ms: float

    @classmethod
    def read(cls, path: str, model: tf.keras.Model) -> DeviceProfile:
        """Reads a profile.

        Args:
          path: The `result.json` of a device; its first model was profiled, in one configuration.
          model: That model.

        Raises:
          UserError: If the file is no such result, or its operators are not those of the model.
        """
        operators, latency_ms = _operators(path)
        work = _work(model)
        ms = dict.fromkeys(work, 0.0)
        nameless = []
        for operator in operators:
            names = [
                f"/{part}/" for part in re.sub(r":\d+$", "", operator["name"])[1:-1].split(";")
            ]
            layers = [layer for layer in work if any(f"/{layer}/" in name for name in names)]
            if layers:
                ms[max(layers, key=work.__getitem__)] += operator["mean_ms"]
            else:
                nameless.append(operator["mean_ms"])
        # TFLite's converter renames what makes the output.
        last = list(work)[-1]
        if nameless and not ms[last]:
            ms[last] = nameless.pop()
        total = sum(operator["mean_ms"] for operator in operators)
        if not total or sum(ms.values()) < _LEAST_ATTRIBUTED * total:
            raise UserError(
                f"pruning.latency_profile: expected operators of the layers of {model.name!r}, as a"
                f" profile of its .tflite with --delegate=cpu has them, found"
                f" {operators[0]['name']!r} in {path}."
            )
        scale = latency_ms / total
        return cls(
            {layer: scale * ms[layer] / work[layer] for layer in work if ms[layer]},
            scale * sum(nameless),
        )

    def latency_ms(self, model: tf.keras.Model) -> float:
        """Returns what a smaller version of the profiled model would take.

        A new layer in front of a factorized one counts at that one's rate.
        """
        return self.rest_ms + sum(self._layers_ms(model).values())

    def weights(self, network: surgery.Network) -> CostWeights:
        """Returns what an operation of each layer takes, in milliseconds."""
        work = {row.layer: float(row.flops) for row in network.cost.table.itertuples()}
        layers = {layer: ms for layer, ms in self.ms_per_work.items() if work.get(layer)}
        return CostWeights(parameter=0.0, flop=0.0, layers=layers)

    def _layers_ms(self, model: tf.keras.Model) -> dict[str, float]:
        rates = {}
        for layer, work in _work(model).items():
            rate = self.ms_per_work.get(layer, self.ms_per_work.get(layer.removesuffix("_rank")))
            if rate is not None:
                rates[layer] = rate * work
        return rates


def budget(value: float, path: str) -> Budget:
    """Returns a budget of milliseconds on the device of a profile.

    Args:
      value: The most that is allowed, in milliseconds.
      path: See `DeviceProfile.read`; it is read when the first network, the profiled one, comes.
    """
    profiles: list[DeviceProfile] = []

    def profile(network: surgery.Network) -> DeviceProfile:
        if not profiles:
            profiles.append(DeviceProfile.read(path, network.model))
        return profiles[0]

    return Budget(
        "latency_ms",
        value,
        measure=lambda network: profile(network).latency_ms(network.model),
        weights=lambda network: profile(network).weights(network),
    )


def _work(model: tf.keras.Model) -> dict[str, float]:
    """Returns each layer's operations, or the bytes it writes if there are none."""
    table = cost.of(model).table
    return {
        row.layer: float(row.flops or row.activation_bytes)
        for row in table.itertuples()
        if row.flops or row.activation_bytes
    }


def _operators(path: str) -> tuple[list[dict[str, Any]], float]:
    """Returns the first model's operators, and its latency in milliseconds."""
    from android_bench import errors, results

    try:
        value = results.read(pathlib.Path(path))
    except errors.UserError as error:
        raise UserError(str(error)) from error
    label = value["models"][0]["label"]
    profiles = [
        (profile["configuration"], operators)
        for profile in value["profiles"]
        if profile["model"] == label
        and (operators := [o for o in profile["operators"] if o["phase"] == "inference"])
    ]
    if len(profiles) != 1:
        raise UserError(
            f"pruning.latency_profile: expected one profile of {label!r} (android_bench run"
            f" --profile with one --threads and --delegate), found {len(profiles)} in {path}."
        )
    configuration, operators = profiles[0]
    (latency_us,) = [
        row["latency_us"]
        for row in value["summary"]
        if row["model"] == label and configuration.items() <= row.items()
    ]
    if latency_us is None:
        raise UserError(
            f"pruning.latency_profile: expected a valid latency of {label!r}, found none in {path}."
        )
    return operators, latency_us / 1e3
