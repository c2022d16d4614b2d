"""Whether the device computes the same as this computer: same model, same input, both outputs.

A fast wrong answer is no speed-up. Needs tflite-runtime or TensorFlow on the host; without either,
or with a binary that cannot write outputs, the result says that nothing was compared.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import numpy as np

# Largest difference allowed, relative to the largest output. Other kernels add in another order
# (1e-6); kernels with dynamic ranges also round activations (1e-3); delegates for GPU and NNAPI may
# compute in half precision (1e-2).
_TOLERANCE = {"cpu": 5e-3, "xnnpack": 5e-3, "gpu": 3e-2, "nnapi": 3e-2, "external": 3e-2}
# Quantized kernels differ in how they round half; one step through the last layer may make two.
_TOLERANCE_STEPS = 2


class DynamicShape(ValueError):
    """The model leaves open how large an input is, so that no two programs run the same."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The outcome for one model in one configuration.

    Attributes:
      compared: Whether there was anything to compare.
      match: Whether the outputs agree; None if not compared.
      detail: The difference and its limit, or why nothing was compared.
    """

    compared: bool
    match: Optional[bool]
    detail: str


def why_not(error: Exception) -> str:
    """Returns in words why this computer's interpreter has nothing to compare with."""
    if isinstance(error, ImportError):
        return "no tflite-runtime or tensorflow on this computer"
    if "Select TensorFlow op" in str(error):
        return "the model needs Select TF ops, which this computer's interpreter has not"
    words = " ".join(str(error).split())
    return f"this computer's interpreter: {words or type(error).__name__}"


class Reference:
    """A model's output on this computer, for an input drawn from a seed."""

    def __init__(self, path: pathlib.Path, seed: int) -> None:
        """Runs the model once.

        Raises:
          ImportError: If there is no interpreter on this computer.
          DynamicShape: If the size of an input is open, apart from the batch, which is 1.
          ValueError: If it cannot make up the input. So is any error of the interpreter's.
          RuntimeError: The interpreter's, if it cannot run the model.
        """
        import numpy as np

        interpreter = _plain_interpreter(path)
        for detail in interpreter.get_input_details():
            shape = detail["shape_signature"].tolist()
            if any(size < 0 for size in shape[1:]):
                raise DynamicShape(
                    f"dynamic input shape {shape} of {detail['name']}: the model needs one fixed"
                    " shape; export it with one, or give it with --extra_flag=input_layer=... and"
                    " --extra_flag=input_layer_shape=..."
                )
        interpreter.allocate_tensors()
        rng = np.random.default_rng(seed)
        self._inputs = []
        for detail in interpreter.get_input_details():
            value = _random(rng, detail)
            interpreter.set_tensor(detail["index"], value)
            self._inputs.append((detail["name"], value))
        interpreter.invoke()
        self._outputs = [
            interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()
        ]
        for output in self._outputs:
            if output.dtype == object:
                raise ValueError("an output of text cannot be compared")

    def write_inputs(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Writes one raw file for each input, in order."""
        paths = []
        for index, (_, value) in enumerate(self._inputs):
            path = folder / f"input{index}"
            path.write_bytes(value.tobytes())
            paths.append(path)
        return paths

    def flags(self, remote_inputs: list[str], remote_output: str) -> list[str]:
        """Returns the flags that give benchmark_model these inputs and make it write its outputs.

        Raises:
          ValueError: If a name cannot be said in its flags.
        """
        names = [name for name, _ in self._inputs]
        if any("," in name for name in names):
            raise ValueError("an input's name has a comma, which the binary's flags cannot say")
        # In this flag a colon parts name and file; one in a name is doubled.
        files = [f"{n.replace(':', '::')}:{p}" for n, p in zip(names, remote_inputs)]
        shapes = [",".join(map(str, value.shape)) for _, value in self._inputs]
        return [
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(files)}",
            f"--output_filepath={remote_output}",
        ]

    def compare(self, raw: bytes, delegate: str) -> Comparison:
        """Compares with what the device wrote: its outputs' bytes, one after the other."""
        import numpy as np

        expected = sum(output.nbytes for output in self._outputs)
        if len(raw) != expected:
            return Comparison(True, False, f"{len(raw)} bytes of output instead of {expected}")
        worst, limit, at = 0.0, 0.0, 0
        for output in self._outputs:
            device = np.frombuffer(raw, output.dtype, output.size, at).reshape(output.shape)
            at += output.nbytes
            difference, allowed = _difference(output, device, delegate)
            if not difference <= allowed:  # A NaN is never within the limit.
                return Comparison(
                    True, False, f"outputs differ by up to {difference:.3g}, allowed {allowed:.3g}"
                )
            worst, limit = max(worst, difference), max(limit, allowed)
        return Comparison(True, True, f"outputs differ by up to {worst:.3g}, allowed {limit:.3g}")


def _difference(host: np.ndarray, device: np.ndarray, delegate: str) -> tuple[float, float]:
    import numpy as np

    if not host.size:
        return 0.0, 0.0
    difference = float(np.max(np.abs(host.astype(np.float64) - device.astype(np.float64))))
    if np.issubdtype(host.dtype, np.integer):
        return difference, float(_TOLERANCE_STEPS)
    return difference, _TOLERANCE[delegate] * max(float(np.max(np.abs(host))), 1e-6)


def _random(rng: np.random.Generator, detail: dict[str, Any]) -> np.ndarray:
    import numpy as np

    shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
    if np.issubdtype(dtype, np.floating):
        return rng.random(shape).astype(dtype)
    if dtype in (np.int8, np.uint8):
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    # What larger integers mean, such as indices, is not in the model; zero is always in range.
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return np.zeros(shape, dtype)
    raise ValueError(f"an input of type {dtype} cannot be made up")


def _plain_interpreter(path: pathlib.Path) -> Any:
    """Returns an interpreter without delegates: the reference is the plain kernels."""
    try:
        from tflite_runtime.interpreter import Interpreter, OpResolverType
    except ImportError:
        from tensorflow.lite.python.interpreter import Interpreter, OpResolverType
    return Interpreter(
        model_path=str(path),
        num_threads=1,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
