"""The rendered writers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from tff_autoprune import data
from tff_autoprune.data.label_names import CHARACTERS
from tff_autoprune.data.rendered import font_families, fontwriters, glyphs

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def writers(cache_dir) -> data.FederatedData:
    return data.load("fontwriters", writers=40, seed=11, cache_dir=cache_dir)


def _family(client_id: str) -> str:
    return client_id.split("_", 2)[2]


def test_images_are_femnists(writers):
    assert writers.spec.image_shape == (28, 28, 1)
    assert "".join(writers.spec.label_names) == CHARACTERS
    images = writers.train.inputs
    borders = np.concatenate([images[:, 0].ravel(), images[:, -1].ravel()])
    assert np.mean(borders == 255) > 0.95
    ink = (images < 128).mean(axis=(1, 2, 3))
    assert 0.08 < np.median(ink) < 0.25
    assert ink.min() > 0.01


def test_ten_percent_of_the_writers_are_held_out_twice(writers):
    assert [len(getattr(writers, part).client_ids) for part in PARTS] == [32, 4, 4]


@pytest.mark.parametrize("seed", range(5))
def test_whole_families_are_held_out(seed):
    parts = fontwriters.split_families(font_families.families(), seed)
    names = [{f.name for kind in part.values() for f in kind} for part in parts]
    assert sum(map(len, names)) == len(set.union(*names)) == len(font_families.families())
    assert all(set(part) == {"script", "plain", "serif"} for part in parts)
    assert all(families for part in parts for families in part.values())


def test_no_writer_of_one_part_shares_a_family_with_another_part(writers):
    families = [{_family(i) for i in getattr(writers, part).client_ids} for part in PARTS]
    assert not families[0] & families[1]
    assert not families[0] & families[2]
    assert not families[1] & families[2]


def test_writers_write_unequally_much_and_unequal_things(writers):
    table = data.statistics(writers.train)
    assert table["examples"].between(20, 250).all()
    assert table["examples"].std() > 30
    assert table["label_skew"].between(0.15, 0.8).all()
    digits = (writers.train.labels < 10).mean()
    assert 0.4 < digits < 0.6


def test_the_same_hand_writes_the_same_character_more_alike_than_another_hand(writers):
    within, between = [], []
    images = writers.train.inputs.astype(np.float32)
    sizes = list(data.client_sizes(writers.train).values())
    owners = np.repeat(np.arange(len(sizes)), sizes)
    for label in range(10):
        rows = np.flatnonzero(writers.train.labels == label)[:150]
        flat = images[rows].reshape(len(rows), -1)
        distances = np.linalg.norm(flat[:, None] - flat[None], axis=-1)
        same = owners[rows][:, None] == owners[rows][None]
        off_diagonal = ~np.eye(len(rows), dtype=bool)
        within.append(distances[same & off_diagonal].mean())
        between.append(distances[~same].mean())
    assert np.mean(within) < 0.85 * np.mean(between)


def test_characters_can_be_told_apart_across_families(writers):
    """A nearest-mean classifier is right far more often than one time in ten."""

    def digits(part):
        rows = part.labels < 10
        return part.inputs[rows].reshape(rows.sum(), -1).astype(np.float32), part.labels[rows]

    images, labels = digits(writers.train)
    means = np.stack([images[labels == label].mean(axis=0) for label in range(10)])
    images, labels = digits(writers.test)
    found = np.linalg.norm(images[:, None] - means[None], axis=-1).argmin(axis=1)
    assert (found == labels).mean() > 0.5


# One stroke, or one loop, in many hands.
ALIKE = ({"1", "I", "l"}, {"0", "O", "o"})


@pytest.mark.parametrize("family", font_families.families(), ids=lambda family: family.name)
def test_every_family_has_62_characters_that_differ(family):
    traced = glyphs.trace(family.faces[0].draw(CHARACTERS))
    ink = (traced.distances <= 2.5 * glyphs.DISTANCE_STEPS).reshape(len(CHARACTERS), -1)
    assert ink.any(axis=1).all()
    common = ink.astype(np.float32) @ ink.T.astype(np.float32)
    overlap = 2 * common / (ink.sum(axis=1)[:, None] + ink.sum(axis=1)[None])
    for i, j in np.argwhere(np.triu(overlap > 0.97, k=1)):
        assert any({CHARACTERS[i], CHARACTERS[j]} <= group for group in ALIKE)
    for letter in "abdeghnqr":
        assert overlap[CHARACTERS.index(letter), CHARACTERS.index(letter.upper())] < 0.9


def _digest(arrays: dict[str, np.ndarray]) -> str:
    joined = b"".join(np.ascontiguousarray(arrays[key]).tobytes() for key in sorted(arrays))
    return hashlib.sha256(joined).hexdigest()


def test_another_process_with_one_core_renders_the_same():
    code = (
        "import os, hashlib, numpy as np\n"
        "os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])\n"
        "from tff_autoprune.data.rendered import font_families, fontwriters\n"
        "a = fontwriters.render(10, 4, font_families.families())\n"
        "j = b''.join(np.ascontiguousarray(a[k]).tobytes() for k in sorted(a))\n"
        "print(hashlib.sha256(j).hexdigest())\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    here = fontwriters.render(10, 4, font_families.families())
    assert result.stdout.strip() == _digest(here)


def test_a_writer_does_not_depend_on_how_many_others_there_are():
    few = fontwriters.render(10, 4, font_families.families())
    many = fontwriters.render(14, 4, font_families.families())
    for number in range(8):
        one, other = (
            arrays["images"][slice(*arrays["offsets"][number : number + 2])]
            for arrays in (few, many)
        )
        np.testing.assert_array_equal(one, other)


def test_rendering_happens_once(tmp_path):
    first = data.load("fontwriters", writers=10, seed=1, cache_dir=str(tmp_path))
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    second = data.load("fontwriters", writers=10, seed=1, cache_dir=str(tmp_path), invert=True)
    assert file.stat().st_mtime_ns == written
    np.testing.assert_array_equal(first.test.inputs, second.test.inputs)
    data.load("fontwriters", writers=10, seed=2, cache_dir=str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    "picture",
    [
        ["#####", "#####", "#####"],
        ["..##..", ".####.", ".#..#.", "##..##"],
        ["#######", "#.....#", "#######"],
    ],
)
def test_thinning_keeps_connections_and_adds_nothing(picture):
    from scipy import ndimage

    ink = np.asarray([[cell == "#" for cell in row] for row in picture])
    ink = np.pad(np.kron(ink, np.ones((4, 4), bool)), 2)
    thinned = glyphs.thin(ink[np.newaxis])[0]
    assert thinned.sum() < ink.sum() / 2
    assert not (thinned & ~ink).any()
    eight = np.ones((3, 3))
    assert ndimage.label(thinned, eight)[1] == ndimage.label(ink, eight)[1] == 1
    assert ndimage.label(~thinned)[1] == ndimage.label(~ink)[1]


@pytest.mark.slow
def test_the_largest_set_stays_within_modest_memory(tmp_path):
    code = (
        "import resource\n"
        "from tff_autoprune import data\n"
        f"d = data.load('fontwriters', writers=3400, cache_dir={str(tmp_path)!r})\n"
        "for i in d.train.client_ids[:50]:\n"
        "    for _ in d.train.create_tf_dataset_for_client(i).batch(64): pass\n"
        "print(len(d.train.client_ids), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    clients, kilobytes = map(int, result.stdout.split())
    assert clients == 2720
    assert kilobytes < 3_000_000
