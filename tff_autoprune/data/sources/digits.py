"""Handwritten digits of scikit-learn (UCI's Optical Recognition of Handwritten Digits, test part).

E. Alpaydin and C. Kaynak, 1998: forms filled in by hand, 8x8 pixels of 0 to 16, ink bright. Nobody
kept the names of the writers, but each form was scanned as a whole and its labels run 0, 1, ... 9
again and again, so the sequence of labels restarts where the next writer's form begins.
"""

from __future__ import annotations

import numpy as np

from tff_autoprune.data.array_client_data import from_clients
from tff_autoprune.data.federated_data import DataSpec, FederatedData
from tff_autoprune.data.loader import Request
from tff_autoprune.data.splits import split_clients

# Row at which each of the 14 writers begins.
_WRITER_STARTS = (0, 130, 256, 386, 516, 646, 776, 906, 1029, 1157, 1287, 1415, 1545, 1667)
_MAX_PIXEL = 16.0


def load(request: Request) -> FederatedData:
    """Loads the 1,797 digits of 14 writers as 8x8x1, ink 1.0 on paper 0.0.

    Args:
      request: Its options `validation_fraction` and `test_fraction` are shares of the writers.
    """
    from sklearn import datasets

    bunch = datasets.load_digits()
    images = (bunch.images / _MAX_PIXEL).astype(np.float32)[..., np.newaxis]
    labels = bunch.target.astype(np.int32)
    spec = DataSpec.build(
        "digits",
        source_shape=images.shape[1:],
        label_names=tuple(str(label) for label in bunch.target_names),
        pixels=request.pixels,
    )
    bounds = (*_WRITER_STARTS, len(labels))
    rows = {f"writer_{i:02d}": slice(*bounds[i : i + 2]) for i in range(len(_WRITER_STARTS))}
    split = split_clients(
        list(rows),
        validation_fraction=request.options["validation_fraction"],
        test_fraction=request.options["test_fraction"],
        seed=request.seed,
        source="digits",
    )
    parts = [
        from_clients([(i, images[rows[i]], labels[rows[i]]) for i in part], request.pixels)
        for part in split
    ]
    return FederatedData(*parts, spec=spec)
