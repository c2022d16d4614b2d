"""What tests of several folders share."""

from __future__ import annotations

import shutil

import pytest
import tensorflow as tf

from tff_autoprune.run_directory import RunDirectory

# As our commands do before TensorFlow runs anything. Else whichever test comes first would decide
# how many threads sum up the numbers of those that compare bits with another process.
tf.config.threading.set_intra_op_parallelism_threads(1)


@pytest.fixture
def trained_run(tmp_path_factory, tmp_path):
    """A run that trained and pruned, and was not exported."""
    import sample_run

    shutil.copytree(sample_run.trained(tmp_path_factory), tmp_path / "run")
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def exported_run(tmp_path_factory, tmp_path):
    """The same run after export and benchmark."""
    import sample_run

    shutil.copytree(sample_run.exported(tmp_path_factory), tmp_path / "run")
    return RunDirectory(tmp_path / "run")
