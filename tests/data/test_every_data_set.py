"""What holds for every data set behind the registry."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_federated as tff

from tff_autoprune import data

PARTS = ("train", "validation", "test")
# The others have tests of their own: they have no pixels, or are not here.
OTHERS = {"shakespeare", "stackoverflow", "texts", "table", "pictures"}
IMAGES = [name for name in data.names() if name not in OTHERS]


@pytest.fixture(scope="module", params=IMAGES)
def loaded(request, load_small) -> data.FederatedData:
    return load_small(request.param)


def test_parts_share_no_client(loaded):
    ids = [client_id for part in PARTS for client_id in getattr(loaded, part).client_ids]
    assert len(ids) == len(set(ids))
    assert all(getattr(loaded, part).client_ids for part in PARTS)


@pytest.mark.parametrize("part", PARTS)
def test_examples_are_float_images_and_integer_labels(loaded, part):
    clients = getattr(loaded, part)
    assert isinstance(clients, tff.simulation.datasets.ClientData)
    expected = (tf.TensorSpec(loaded.spec.image_shape, tf.float32), tf.TensorSpec((), tf.int32))
    assert clients.element_type_structure == expected
    for client_id in clients.client_ids:
        dataset = clients.create_tf_dataset_for_client(client_id)
        assert dataset.element_spec == expected
        for image, label in dataset.as_numpy_iterator():
            assert 0.0 <= image.min() <= image.max() <= 1.0
            assert 0 <= label < loaded.spec.num_classes


def test_sizes_and_arrays_agree_with_the_datasets(loaded):
    sizes = data.client_sizes(loaded.train)
    assert list(sizes) == loaded.train.client_ids
    for client_id in loaded.train.client_ids[:3]:
        images, labels = data.client_arrays(loaded.train, client_id)
        pairs = list(loaded.train.create_tf_dataset_for_client(client_id).as_numpy_iterator())
        assert sizes[client_id] == len(pairs) == len(images) > 0
        assert (images.dtype, labels.dtype) == (np.float32, np.int32)
        np.testing.assert_array_equal(images, np.stack([image for image, _ in pairs]))
        np.testing.assert_array_equal(labels, [label for _, label in pairs])


def test_datasets_can_be_made_inside_a_graph(loaded):
    client_id = loaded.validation.client_ids[-1]

    @tf.function
    def sums(name):
        dataset = loaded.validation.serializable_dataset_fn(name)
        return dataset.reduce(
            (0.0, 0), lambda total, row: (total[0] + tf.reduce_sum(row[0]), total[1] + row[1])
        )

    images, labels = data.client_arrays(loaded.validation, client_id)
    pixel_sum, label_sum = sums(tf.constant(client_id))
    np.testing.assert_allclose(pixel_sum, images.sum(dtype=np.float64), rtol=1e-4)
    assert label_sum == labels.sum()


def test_tff_can_serialize_the_datasets(loaded):
    signature = loaded.test.dataset_computation.type_signature
    assert str(signature.parameter) == "str"
    assert isinstance(signature.result, tff.SequenceType)


def test_all_clients_together_have_every_example(loaded):
    together = loaded.train.create_tf_dataset_from_all_clients(seed=3)
    labels = sorted(label for _, label in together.as_numpy_iterator())
    expected = [data.client_arrays(loaded.train, i)[1] for i in loaded.train.client_ids]
    assert labels == sorted(np.concatenate(expected).tolist())


def test_an_unknown_client_is_refused(loaded):
    with pytest.raises(ValueError, match="is not a client"):
        loaded.train.create_tf_dataset_for_client("nobody")


def test_preprocess_works_as_tff_has_it(loaded):
    batched = loaded.train.preprocess(lambda dataset: dataset.batch(4))
    images, _ = next(iter(batched.create_tf_dataset_for_client(loaded.train.client_ids[0])))
    assert images.shape[1:] == loaded.spec.image_shape


def test_the_description_fits(loaded):
    spec = loaded.spec
    assert len(spec.label_names) == spec.num_classes
    assert spec.image_shape == spec.source_shape
    assert spec.pixels.identity


@pytest.mark.parametrize("name", IMAGES)
def test_pixel_options_act_as_the_description_says(name, load_small):
    raw = load_small(name)
    changed = load_small(name, invert=True, crop=[2, 8], resize=5)
    spec = changed.spec
    assert spec.image_shape == (5, 5, raw.spec.image_shape[2])
    assert spec.source_shape == raw.spec.image_shape
    assert changed.test.client_ids == raw.test.client_ids
    client_id = raw.test.client_ids[0]
    source, labels = data.client_arrays(raw.test, client_id)
    images, same_labels = data.client_arrays(changed.test, client_id)
    np.testing.assert_array_equal(labels, same_labels)
    np.testing.assert_allclose(images, spec.apply(source), atol=1e-6)
    np.testing.assert_allclose(images[0], spec.apply(source[0]), atol=1e-6)


@pytest.mark.parametrize("name", IMAGES)
def test_the_seed_decides_the_split(name, load_small):
    first, again, other = (load_small(name, seed=seed) for seed in (5, 5, 6))
    assert first.train.client_ids == again.train.client_ids
    for client_id in first.train.client_ids[:2]:
        for one, two in zip(
            data.client_arrays(first.train, client_id), data.client_arrays(again.train, client_id)
        ):
            np.testing.assert_array_equal(one, two)
    # The parts of these are named by number, or are the source's.
    if name not in ("fontwriters", "celeba", "cifar100"):
        assert first.train.client_ids != other.train.client_ids


def test_importing_the_package_imports_no_tensorflow():
    code = (
        "import sys; from tff_autoprune import data; data.names();"
        " sys.exit(any(name in sys.modules for name in ('tensorflow', 'pandas', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
