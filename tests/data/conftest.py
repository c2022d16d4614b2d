from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest
import source_files

from tff_autoprune import data


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory) -> str:
    """A cache for the whole test run: rendering once is enough."""
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def load_small(tmp_path_factory, cache_dir) -> Callable[..., data.FederatedData]:
    """Loads any data set, small: `load_small(name, **options)`."""
    folder: pathlib.Path = tmp_path_factory.mktemp("sources")
    source_files.write_emnist(folder)
    source_files.write_celeba(folder)
    source_files.write_cifar100(folder)
    arguments = {
        "fontwriters": {"writers": 20},
        "avatars": {"identities": 10},
        "digits": {},
        "femnist": {"path": str(folder)},
        "celeba": {"path": str(folder)},
        "cifar100": {"path": str(folder)},
        "leaf": {"path": str(source_files.write_leaf(folder / "leaf"))},
        "npz": {"path": str(source_files.write_npz(folder / "own.npz"))},
    }

    def load(name: str, **options) -> data.FederatedData:
        return data.load(name, **{"cache_dir": cache_dir, **arguments[name], **options})

    return load
