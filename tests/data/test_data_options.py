"""What a user may ask for, and what they are told otherwise."""

from __future__ import annotations

import math

import pytest

from tff_autoprune import data
from tff_autoprune.errors import UserError


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mnist", {}, r"data\.name: expected one of fontwriters, .*found 'mnist'"),
        ("digits", {"writers": 3}, r"data\.writers: `digits` has no such option; its options are"),
        ("fontwriters", {"writers": 5}, r"data\.writers: .*from 10 to 3400, found 5\."),
        ("fontwriters", {"writers": 3401}, r"found 3401"),
        ("fontwriters", {"writers": "many"}, r"an integer .*found 'many'"),
        ("fontwriters", {"writers": 20.0}, r"an integer .*found 20\.0"),
        ("fontwriters", {"writers": True}, r"found True"),
        ("femnist", {"only_digits": 1}, r"data\.only_digits: expected True or False, found 1"),
        ("femnist", {"split": "random"}, r"data\.split: expected one of clients, examples"),
        ("celeba", {"label": "Male"}, r"data\.label: expected one of .*male.*found 'Male'"),
        ("digits", {"test_fraction": 1.0}, r"data\.test_fraction: .*0\.0 to 0\.9, found 1\.0"),
        ("digits", {"test_fraction": math.nan}, r"found nan"),
        ("digits", {"test_fraction": 0.5, "validation_fraction": 0.5}, r"none would train"),
        ("digits", {"seed": -1}, r"data\.seed: .*found -1"),
        ("digits", {"seed": 1.5}, r"data\.seed: expected an integer"),
        ("digits", {"invert": "yes"}, r"data\.invert: expected True or False, found 'yes'"),
        ("digits", {"crop": (0, 9)}, r"data\.crop: .*stop <= 8 .*8x8\), found \(0, 9\)"),
        ("digits", {"crop": (4, 4)}, r"start < stop"),
        ("digits", {"crop": (-1, 4)}, r"0 <= start"),
        ("digits", {"crop": "0:4"}, r"two integers"),
        ("digits", {"crop": (0, 4, 8)}, r"two integers"),
        ("digits", {"resize": 0}, r"data\.resize: .*from 1 to 1024, found 0"),
        ("digits", {"path": "/somewhere"}, r"data\.path: `digits` needs no file"),
        ("npz", {}, r"data\.path: `npz` needs a \.npz file"),
        ("leaf", {}, r"data\.path: `leaf` needs a folder"),
    ],
)
def test_what_is_not_allowed_is_named(name, arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        data.load(name, **arguments)
    assert "\n" not in str(caught.value)


def test_none_stands_for_the_default():
    given = data.load("digits", test_fraction=None, path=None, crop=None)
    default = data.load("digits")
    assert given.test.client_ids == default.test.client_ids


def test_a_whole_number_is_a_fraction_too():
    assert len(data.load("digits", validation_fraction=0).validation.client_ids) == 1


@pytest.mark.parametrize("name", data.names())
def test_every_option_is_explained(name):
    assert data.describe(name)
    assert all("(default " in text for text in data.option_help(name).values())
