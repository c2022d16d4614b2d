"""From a name in a configuration to a built Keras model."""

from __future__ import annotations

import importlib
import inspect
import json
import pathlib
import re
import zipfile
from collections.abc import Callable, Sequence

import tensorflow as tf

from tff_autoprune.errors import UserError
from tff_autoprune.models import cnn, graph, inception, resnet
from tff_autoprune.run_directory import RunDirectory

_BUILDERS: dict[str, Callable[..., tf.keras.Model]] = {
    "cnn": cnn.build_cnn,
    "resnet": resnet.build_resnet,
    "inception": inception.build_inception,
}
_FILE_SUFFIXES = (".keras", ".h5")


def names() -> tuple[str, ...]:
    """Returns the names of the built-in networks."""
    return tuple(_BUILDERS)


def build(
    name: str,
    *,
    input_shape: Sequence[int],
    num_classes: int,
    seed: int = 0,
    dtype: str = "float32",
    **options: object,
) -> tf.keras.Model:
    """Builds or loads a classifier.

    Args:
      name: One of `names()`; or a Keras file (`.keras`, `.h5`) or SavedModel folder; or
        `module:function`, where the function takes `input_shape` and `num_classes` (or nothing)
        and returns a Keras model.
      input_shape: (height, width, channels) of an image.
      num_classes: Number of labels.
      seed: Seeds the initial weights.
      dtype: "float32" or "int32": the type of the data's inputs.
      **options: Options of the built-in network: `filters` for all of them, `normalization` and
        `group_size` for `resnet`. None stands for the network's default.

    Returns:
      A built model that maps float32 [batch, height, width, channels] to logits or probabilities
      [batch, num_classes].

    Raises:
      UserError: If there is no such network, file or function, an option is not the network's, or
        the model does not fit the data.
    """
    input_shape = tuple(input_shape)
    options = {key: value for key, value in options.items() if value is not None}
    tf.keras.utils.set_random_seed(seed)
    if name in _BUILDERS:
        if len(input_shape) != 3:
            raise UserError(
                f"model.name: the network {name!r} reads images, the data has inputs of shape"
                f" {input_shape}; name a model of your own, module:function or a Keras file."
            )
        builder = _BUILDERS[name]
        known = set(inspect.signature(builder).parameters) - {"input_shape", "num_classes"}
        for option in options:
            if option not in known:
                raise UserError(
                    f"model.{option}: the network {name!r} has no such option; it has"
                    f" {', '.join(sorted(known))}."
                )
        try:
            return builder(input_shape=input_shape, num_classes=num_classes, **options)
        except ValueError as error:
            raise UserError(
                f"model.name: the network {name!r} cannot be built for images of"
                f" {input_shape[0]}x{input_shape[1]} pixels; data.resize and model.filters change"
                f" what is built ({str(error).splitlines()[0]})"
            ) from error
    if options:
        raise UserError(
            f"model.{next(iter(options))}: only the built-in networks {', '.join(_BUILDERS)} have"
            f" options; {name!r} is a model of your own."
        )
    if _is_file(name):
        if not pathlib.Path(name).exists():
            raise UserError(f"model.name: there is no file {name}.")
        try:
            model = _load(pathlib.Path(name))
        except UserError as error:
            raise UserError(f"model.name: {error}") from error
    elif ":" in name:
        model = _call(name, input_shape, num_classes)
    else:
        raise UserError(
            f"model.name: expected one of {', '.join(_BUILDERS)}, a .keras or .h5 file, a"
            f" SavedModel folder or module:function, found {name!r}."
        )
    _check_fits(name, model, input_shape, num_classes, dtype)
    return model


def load_trained(run: RunDirectory, which: str) -> tf.keras.Model:
    """Loads a model of a run, layers of the user's own included.

    Args:
      run: The run directory.
      which: "dense" or "pruned".

    Returns:
      The model, not compiled.

    Raises:
      UserError: If the run has no such model, or it does not load.
    """
    run.require(f"{which}_model")
    name = run.read_config()["config"]["model"]["name"]
    if ":" in name and not _is_file(name):
        _import(name)  # Which registers its layers.
    return _load(getattr(run, f"{which}_model"))


def _is_file(name: str) -> bool:
    return pathlib.Path(name).suffix in _FILE_SUFFIXES or pathlib.Path(name).is_dir()


def _load(path: pathlib.Path) -> tf.keras.Model:
    try:
        model = tf.keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())
        unknown = _unregistered(path) or re.findall(r"Unknown layer: '?([\w>]+)", reason)
        if unknown:
            reason = (
                f"the class {unknown[0]!r} of your own. Name the module that registers it by"
                " --import=MODULE, or name the model as module:function"
            )
        raise UserError(f"{path}: expected a Keras model that loads, found: {reason}") from error
    if not isinstance(model, tf.keras.Model):
        raise UserError(
            f"{path}: this SavedModel keeps functions but no layers, as model.export() writes it;"
            " store the model by model.save('mine.keras')."
        )
    return model


def _unregistered(path: pathlib.Path) -> list[str]:
    """Returns the names of classes in a `.keras` file that nobody has registered.

    Keras' own message about them depends on where they came from.
    """
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
    names: list[str] = []

    def visit(node: object) -> None:
        if isinstance(node, dict):
            name = node.get("registered_name")
            if isinstance(name, str) and ">" in name:
                names.append(name)
        for child in node.values() if isinstance(node, dict) else node:
            if isinstance(child, (dict, list)):
                visit(child)

    visit(config)
    return [name for name in names if tf.keras.saving.get_registered_object(name) is None]


def _import(name: str) -> Callable[..., object]:
    module_name, _, function_name = name.partition(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"model.name: {name!r} cannot be imported: {error}") from error


def _call(name: str, input_shape: tuple[int, ...], num_classes: int) -> tf.keras.Model:
    function = _import(name)
    wants = inspect.signature(function).parameters
    arguments = {"input_shape": input_shape, "num_classes": num_classes}
    if not any(p.kind is p.VAR_KEYWORD for p in wants.values()):
        arguments = {key: value for key, value in arguments.items() if key in wants}
    model = function(**arguments)
    graph.check_graph(model, f"model.name: {name}")
    return model


def _check_fits(
    name: str, model: tf.keras.Model, input_shape: tuple[int, ...], num_classes: int, dtype: str
) -> None:
    graph.check_graph(model, f"model.name: {name}")
    found = model.input_shape
    if not isinstance(found, tuple) or len(found) != 1 + len(input_shape):
        raise UserError(
            f"model.name: {name!r} must take one input of shape {input_shape}, found {found}."
        )
    if any(f not in (None, wanted) for f, wanted in zip(found[1:], input_shape)):
        raise UserError(
            f"model.name: {name!r} takes inputs of shape {found[1:]}, the data has {input_shape};"
            " data.crop and data.resize change it."
        )
    takes = tf.as_dtype(model.inputs[0].dtype)
    if takes.is_integer and dtype == "float32":
        raise UserError(
            f"model.name: {name!r} takes {takes.name}, the data is float32, images in [0, 1]; leave"
            " the input's dtype out, and what turns bytes into [0, 1]."
        )
    output = model.output_shape
    # Two classes, or a number that is to be told, can have one output.
    allowed = (num_classes, 1) if num_classes <= 2 else (num_classes,)
    if not isinstance(output, tuple) or output[-1] not in allowed:
        raise UserError(
            f"model.name: {name!r} must give one value for each of the {num_classes} classes,"
            f" found output shape {output}."
        )
    try:
        tf.keras.models.model_from_json(model.to_json())
    except Exception as error:  # Whatever the constructor of a layer raises.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"model.name: {name!r} cannot be stored, which checkpoints and the export need; a layer"
            " of your own needs @tf.keras.saving.register_keras_serializable() and a get_config"
            f" ({reason})"
        ) from error
