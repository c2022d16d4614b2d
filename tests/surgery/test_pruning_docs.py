"""The examples of docs/pruning_any_model.md for own layers are run as they stand."""

import pathlib
import re

import numpy as np
import tensorflow as tf

from tff_autoprune import surgery


def test_own_layers():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "pruning_any_model.md").read_text()
    section = text.split("## Your own layers")[1].split("\n## ")[0]
    names = {"tf": tf, "surgery": surgery}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(block, names)
    inputs = tf.keras.Input((4, 5))
    x = names["Projection"](6, name="own")(inputs)
    x = names["Projection"](3, name="last")(names["Gain"]()(x))
    model = tf.keras.Model(inputs, x)
    removal = surgery.plan_removal(model, {"own": [1, 4]})
    smaller = removal.apply()
    assert smaller.get_layer("own").units == 4
    assert surgery.difference(removal, smaller, np.ones([2, 4, 5], np.float32)) <= 1e-6
