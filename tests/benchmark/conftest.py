import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "report"))


@pytest.fixture
def trained_run(tmp_path_factory, tmp_path):
    """A run that trained and pruned, and was not exported."""
    import sample_run

    from tff_autoprune.run_directory import RunDirectory

    shutil.copytree(sample_run.trained(tmp_path_factory), tmp_path / "run")
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def exported_run(tmp_path_factory, tmp_path):
    """The same run after export and benchmark."""
    import sample_run

    from tff_autoprune.run_directory import RunDirectory

    shutil.copytree(sample_run.exported(tmp_path_factory), tmp_path / "run")
    return RunDirectory(tmp_path / "run")
