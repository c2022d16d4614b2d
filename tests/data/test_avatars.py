"""The drawn people."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tff_autoprune import data

if sys.version_info < (3, 10):
    pytest.skip("the drawings need Python 3.10", allow_module_level=True)

from tff_autoprune.data.rendered import avatars


@pytest.fixture(scope="module")
def people(cache_dir) -> data.FederatedData:
    return data.load("avatars", identities=24, seed=2, cache_dir=cache_dir)


def test_a_client_is_one_person_with_one_label(people):
    assert people.spec.image_shape == (84, 84, 3)
    assert people.spec.label_names == ("shaven", "facial hair")
    for part in (people.train, people.validation, people.test):
        table = data.statistics(part)
        assert (table["labels"] == 1).all()
        assert table["examples"].between(8, 40).all()
    assert set(people.train.labels) == {0, 1}


def test_pictures_of_a_person_differ(people):
    images, _ = data.client_arrays(people.train, people.train.client_ids[0])
    flat = images.reshape(len(images), -1)
    distances = np.abs(flat[:, None] - flat[None]).mean(axis=-1)
    assert distances[~np.eye(len(images), dtype=bool)].min() > 0.02


def test_mean_colours_do_not_tell_the_label(people):
    means = people.train.inputs.reshape(len(people.train.inputs), -1, 3).mean(axis=1)
    labels = people.train.labels
    gap = np.abs(means[labels == 1].mean(axis=0) - means[labels == 0].mean(axis=0))
    assert (gap < 0.8 * means.std(axis=0)).all()


def test_rendering_depends_on_the_seed_and_the_number_only():
    few, more, other = avatars.render(1, 1), avatars.render(2, 1), avatars.render(1, 2)
    count = few["offsets"][-1]
    np.testing.assert_array_equal(few["images"], more["images"][:count])
    assert not np.array_equal(few["images"], other["images"])
