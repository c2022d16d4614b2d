"""What TensorBoard shows of a run: scalars, hyper-parameters, filters per layer as an image.

Everything goes through TFF's release managers, so a program of your own can group these with its
own ones.
"""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping
from typing import Any, Optional

import tensorflow as tf
import tensorflow_federated as tff

Row = Mapping[str, Any]
_FILTERS = "filters/"


def release_manager(
    path: pathlib.Path, config: Mapping[str, Any], filters: Mapping[str, int]
) -> tff.program.ReleaseManager:
    """Returns what writes a run's TensorBoard events.

    Args:
      path: The folder of the events.
      config: The configuration, flat ("federated.rounds": 200), for the tab "HParams".
      filters: Filters of each prunable group of the dense model.

    Returns:
      A manager whose `release` takes a row of metrics.csv and its round.
    """
    return tff.program.GroupingReleaseManager(
        [ScalarReleaseManager(path), FilterImageReleaseManager(path, config, filters)]
    )


class ScalarReleaseManager(tff.program.ReleaseManager[Row, int]):
    """Writes the numbers of a row as scalars."""

    def __init__(self, path: pathlib.Path) -> None:
        """Starts in a folder, which need not exist."""
        self._manager = tff.program.TensorBoardReleaseManager(path)

    async def release(self, value: Row, key: int) -> None:
        """Writes a row of metrics.csv at round `key`."""
        # The round is the x axis.
        scalars = {k: v for k, v in value.items() if k != "round" and v is not None}
        await self._manager.release(scalars, key)


class FilterImageReleaseManager(tff.program.ReleaseManager[Row, int]):
    """Draws the filters left in each layer, and names the hyper-parameters of the run."""

    def __init__(
        self, path: pathlib.Path, config: Mapping[str, Any], filters: Mapping[str, int]
    ) -> None:
        """Starts in a folder, which need not exist.

        Args:
          path: The folder.
          config: Hyper-parameters by name.
          filters: What a drawing shows as "at first"; a resumed run starts with fewer.
        """
        self._writer = tf.summary.create_file_writer(str(path))
        self._config: Optional[Mapping[str, Any]] = config
        self._first = dict(filters)
        self._drawn: dict[str, int] = {}

    async def release(self, value: Row, key: int) -> None:
        """Draws the filters of a row of metrics.csv at round `key`, if they have changed.

        Only rounds that were evaluated are drawn: a drawing takes a while.
        """
        filters = {k[len(_FILTERS) :]: v for k, v in value.items() if k.startswith(_FILTERS)}
        if self._config is not None:
            self._write_hparams(self._config)
            self._config = None
        if filters and filters != self._drawn and value.get("validation_accuracy") is not None:
            self._drawn = filters
            with self._writer.as_default():
                tf.summary.image("filters", _draw(self._first, filters)[None], step=key)
            self._writer.flush()

    def _write_hparams(self, config: Mapping[str, Any]) -> None:
        from tensorboard.plugins.hparams import api

        # The plug-in takes numbers, booleans and text.
        values = {
            name: value if isinstance(value, (bool, int, float)) else str(value)
            for name, value in config.items()
        }
        with self._writer.as_default():
            api.hparams(values)
        self._writer.flush()


def _draw(first: Mapping[str, int], now: Mapping[str, int]) -> tf.Tensor:
    """Returns bars of the filters at first and now, uint8 [height, width, 4]."""
    from matplotlib import figure

    drawing = figure.Figure(figsize=(6, 1 + 0.3 * len(now)), layout="constrained")
    axes = drawing.add_subplot()
    axes.barh(list(first), list(first.values()), color="#dddddd", label="at first")
    bars = axes.barh(list(now), list(now.values()), color="#1f77b4", label="now")
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("filters")
    axes.legend()
    png = io.BytesIO()
    drawing.savefig(png, format="png")
    return tf.image.decode_png(png.getvalue(), channels=4)
