"""The real handwritten digits."""

from __future__ import annotations

import numpy as np
from sklearn import datasets

from tff_autoprune import data


def test_fourteen_writers_share_all_digits():
    loaded = data.load("digits", seed=3)
    parts = (loaded.train, loaded.validation, loaded.test)
    assert [len(part.client_ids) for part in parts] == [10, 2, 2]
    sizes = {k: v for part in parts for k, v in data.client_sizes(part).items()}
    assert len(sizes) == 14
    assert sum(sizes.values()) == 1797
    assert set(sizes.values()) <= set(range(120, 132))


def test_a_writers_digits_are_scikit_learns_rows():
    bunch = datasets.load_digits()
    loaded = data.load("digits")
    rows = slice(516, 646)
    part = next(
        part
        for part in (loaded.train, loaded.validation, loaded.test)
        if "writer_04" in part.client_ids
    )
    images, labels = data.client_arrays(part, "writer_04")
    np.testing.assert_allclose(images[..., 0], bunch.images[rows] / 16)
    np.testing.assert_array_equal(labels, bunch.target[rows])


def test_every_writer_begins_the_sequence_of_labels_anew():
    loaded = data.load("digits")
    for part in (loaded.train, loaded.validation, loaded.test):
        for client_id in part.client_ids:
            labels = part.client_labels(client_id)
            assert labels[0] in (0, 1)  # One form lost its first digit.
            np.testing.assert_array_equal(np.diff(labels[:9]), 1)
