"""A user's own table, CSV or Parquet: one column names the client, one is the label.

All other columns are read as numbers, and scaled to mean 0 and deviation 1 over the rows of clients
that train.
"""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd

from tff_autoprune.data.array_client_data import ArrayClientData
from tff_autoprune.data.arrays import from_arrays
from tff_autoprune.data.federated_data import FederatedData
from tff_autoprune.data.loader import Request
from tff_autoprune.errors import UserError


def load(request: Request) -> FederatedData:
    """Reads the table and holds whole clients out.

    Args:
      request: Its options `client_column` and `label_column` name columns. Text labels are classes
        in alphabetical order; whole numbers are classes, too; others are regression.

    Raises:
      UserError: If the file is missing or damaged, or a column is missing or holds what is no
        number.
    """
    path = pathlib.Path(request.path).expanduser()
    frame = _read(path)
    options = request.options
    for option in ("client_column", "label_column"):
        if options[option] not in frame:
            raise UserError(
                f"data.{option}: {path} has no column {options[option]!r}; it has"
                f" {', '.join(map(str, frame.columns))}."
            )
    clients, label = frame[options["client_column"]], frame[options["label_column"]]
    features = frame.drop(columns=[options["client_column"], options["label_column"]])
    for column in frame:
        if frame[column].isna().any():
            row = int(np.flatnonzero(frame[column].isna())[0])
            raise UserError(f"{path}: row {row} of the column {column!r} is empty.")
    for column in features:
        if features[column].dtype.kind not in "fiub":
            raise UserError(
                f"{path}: the column {column!r} holds {features[column].iloc[0]!r}; expected"
                " numbers. Turn it into numbers, or leave it out."
            )
    if features.empty:
        raise UserError(f"{path}: there is no column besides the client's and the label's.")
    names = None
    if label.dtype.kind not in "fiub":
        names, label = np.unique(label.astype(str), return_inverse=True)
        names = [str(name) for name in names]
    loaded = from_arrays(
        features.to_numpy(np.float32),
        np.asarray(label),
        clients.to_numpy(str),
        name="table",
        label_names=names,
        validation_fraction=options["validation_fraction"],
        test_fraction=options["test_fraction"],
        pixels=request.pixels,
        seed=request.seed,
    )
    mean = loaded.train.inputs.mean(axis=0)
    deviation = loaded.train.inputs.std(axis=0)
    deviation[deviation == 0] = 1.0
    parts = [
        _scaled(part, mean, deviation) for part in (loaded.train, loaded.validation, loaded.test)
    ]
    return FederatedData(*parts, spec=loaded.spec)


def _scaled(clients: ArrayClientData, mean: np.ndarray, deviation: np.ndarray) -> ArrayClientData:
    sizes = list(clients.client_sizes().values())
    return ArrayClientData(
        clients.client_ids,
        np.concatenate([[0], np.cumsum(sizes)]),
        (clients.inputs - mean) / deviation,
        clients.labels,
    )


def _read(path: pathlib.Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"data.path: {path} is not a file; `table` needs a .csv or .parquet file.")
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path)
    except ImportError as error:
        raise UserError(
            f"{path}: reading Parquet needs the package pyarrow; install it, or write a CSV."
        ) from error
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: expected a CSV or Parquet table, found: {reason}.") from error
