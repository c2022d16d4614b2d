"""How long a finished run would have taken on a fleet of phones, and what energy: a model.

What a round sent and computed is taken from metrics.csv. The devices are modelled: each client of
a round is drawn from log-normal speeds and bandwidths, or from the classes of a table, and a round
lasts as long as its slowest client. Draws depend on seed and round only, so that runs of one seed
meet the same devices. Every client of a round is given the mean number of examples.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Optional

import numpy as np
import pandas as pd

from tff_autoprune import config as config_lib
from tff_autoprune import randomness
from tff_autoprune.errors import UserError
from tff_autoprune.report import bill, dense
from tff_autoprune.report.run_data import RunData

_NUMBERS = (
    "gflops",
    "download_mbps",
    "upload_mbps",
    "joules_per_gflop",
    "joules_per_megabyte",
)
_MEASURED = ("device_title", "configuration", "model", "valid", "latency_us")


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Classes of devices.

    Attributes:
      table: A row a class: share, and the fields of the section `fleet` of the configuration.
      gflops_spread: Standard deviation of the logarithm of the speed within a class.
      mbps_spread: The same of the bandwidths, up and down alike.
      source: Where the speeds come from, in words.
    """

    table: pd.DataFrame
    gflops_spread: float
    mbps_spread: float
    source: str


def load(run: RunData, wanted: str = "") -> Fleet:
    """Returns the fleet that a run is put on.

    Args:
      run: The run; the section `fleet` of its configuration is the default.
      wanted: A CSV file of device classes (columns share, gflops, download_mbps, upload_mbps,
        joules_per_gflop, joules_per_megabyte; what is missing is the configuration's), the
        measurements.csv of `android_bench`, or "gflops=2,upload_mbps=1".

    Raises:
      UserError: If the file or a field is wrong.
    """
    settings = {
        **{name: getattr(config_lib.default().fleet, name) for name in config_lib.SCHEMA["fleet"]},
        **run.config.get("fleet", {}),
    }
    wanted = wanted or settings["devices"] or ""
    if wanted.endswith(".csv"):
        table, source = _read(pathlib.Path(wanted), run)
        spreads = (0.0, 0.0 if "download_mbps" in table else settings["mbps_spread"])
    else:
        settings.update(_fields(wanted))
        table, source = pd.DataFrame({"share": [1.0]}), "log-normal around the configured medians"
        spreads = (settings["gflops_spread"], settings["mbps_spread"])
    for name in _NUMBERS:
        if name not in table:
            table[name] = settings[name]
    wrong = table[["share", *_NUMBERS]].le(0).any()
    if wrong.any():
        raise UserError(f"--fleet: {wrong.idxmax()}: expected numbers > 0.")
    return Fleet(table, *spreads, source)


def _fields(wanted: str) -> dict[str, float]:
    fields = {}
    for part in filter(None, wanted.split(",")):
        name, _, value = part.partition("=")
        if name not in config_lib.SCHEMA["fleet"] or name == "devices":
            allowed = ", ".join(n for n in config_lib.SCHEMA["fleet"] if n != "devices")
            raise UserError(
                f"--fleet: expected a .csv file or FIELD=NUMBER with a field of {allowed},"
                f" found {part!r}."
            )
        try:
            fields[name] = float(value)
        except ValueError as error:
            raise UserError(f"--fleet: {name}: expected a number, found {value!r}.") from error
    return fields


def _read(path: pathlib.Path, run: RunData) -> tuple[pd.DataFrame, str]:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"--fleet: {path}: expected a CSV table, found {error}.") from error
    if set(_MEASURED) <= set(table.columns):
        return _measured(table, path, run), f"speeds measured by android_bench, {path.name}"
    if "gflops" not in table:
        raise UserError(f"--fleet: {path}: expected a column 'gflops', found {list(table)}.")
    if "share" not in table:
        table["share"] = 1.0
    known = [name for name in ("share", *_NUMBERS) if name in table]
    try:
        return table[known].astype(float), f"the classes of {path.name}"
    except ValueError as error:
        raise UserError(f"--fleet: {path}: expected numbers, found {error}.") from error


def _measured(table: pd.DataFrame, path: pathlib.Path, run: RunData) -> pd.DataFrame:
    """Returns a class per device and configuration, as fast as it ran the model forward."""
    flops = {name: run.summary.get(name, {}).get("flops") for name in ("dense", "pruned")}
    table = table[table["valid"].astype(bool)]
    table = table.assign(flops=table["model"].str.partition(".")[0].map(flops))
    table = table.dropna(subset=["flops", "latency_us"])
    if not len(table):
        raise UserError(f"--fleet: {path}: expected valid measurements of this run's models.")
    table["gflops"] = table["flops"] / table["latency_us"] / 1e3
    speeds = table.groupby(["device_title", "configuration"])["gflops"].median()
    return pd.DataFrame({"share": 1.0, "gflops": speeds.to_numpy(float)})


def model(run: RunData, fleet: Fleet, threshold: Optional[float] = None) -> Optional[dict]:
    """Models the time and the energy of a run.

    Args:
      run: The run.
      fleet: What it runs on.
      threshold: Validation accuracy at which it has arrived, see `dense.dense_threshold`.

    Returns:
      The section "fleet" of summary.json, or None if the run has no counts of examples: "source",
      "devices" (the classes), "seconds", "dense_seconds" (all rounds; what the dense model would
      have taken on the same devices), "seconds_per_round" (median), "seconds_to_arrive" (None if it
      never did), "joules_per_client_round", "dense_joules_per_client_round".
    """
    if run.metrics is None or "examples" not in run.metrics or "dense" not in run.summary:
        return None
    seconds, joules = per_round(run, fleet)
    dense_seconds, dense_joules = per_round(run, fleet, as_dense=True)
    row = None if threshold is None else dense.arrival(run, threshold)
    visits = max(1, int(run.metrics["clients"].sum()))
    return {
        "source": fleet.source,
        "devices": fleet.table.to_dict("records"),
        "gflops_spread": fleet.gflops_spread,
        "mbps_spread": fleet.mbps_spread,
        "seconds": float(seconds.sum()),
        "dense_seconds": float(dense_seconds.sum()),
        "seconds_per_round": float(np.median(seconds)),
        "seconds_to_arrive": None if row is None else float(seconds[: row + 1].sum()),
        "joules_per_client_round": float(joules.sum() / visits),
        "dense_joules_per_client_round": float(dense_joules.sum() / visits),
    }


def per_round(run: RunData, fleet: Fleet, as_dense: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Models each round.

    Args:
      run: The run.
      fleet: What it runs on.
      as_dense: Whether to take what the dense model would have sent and computed.

    Returns:
      Seconds that the round lasts and joules of all its clients, float64 [rounds].
    """
    prefix = "dense_" if as_dense else ""
    flops = run.summary["dense"]["flops"] if as_dense else None
    seconds, joules = [], []
    for row in run.metrics.to_dict("records"):
        count = max(1, int(row["clients"]))
        returned = max(1, count - int(row["failed_clients"]))
        work = bill.TRAINING_PASSES * (flops or row["flops"]) * row["examples"] / returned
        down, up = row[f"{prefix}download_bytes"] / count, row[f"{prefix}upload_bytes"] / returned
        devices = _draw(fleet, run.config["seed"], int(row["round"]), count)
        lasts = (
            down / (devices["download_mbps"] * 1.25e5)
            + work / (devices["gflops"] * 1e9)
            + up / (devices["upload_mbps"] * 1.25e5)
        )
        used = work / 1e9 * devices["joules_per_gflop"]
        used = used + (down + up) / 1e6 * devices["joules_per_megabyte"]
        asked = 0.0 if as_dense else _feedback_seconds(run, fleet, row)
        seconds.append(float(np.max(lasts)) + asked)
        joules.append(float(np.sum(used)))
    return np.array(seconds), np.array(joules)


def _feedback_seconds(run: RunData, fleet: Fleet, row: Mapping[str, Any]) -> float:
    """Returns how long the clients that judge a cut take to receive it."""
    sent = row.get("feedback_bytes")
    if not sent or not np.isfinite(sent):
        return 0.0
    count = int(run.config["federated"]["feedback_clients"])
    # Other devices than those that train: the rounds of training are counted from 1.
    devices = _draw(fleet, run.config["seed"], -int(row["round"]), count)
    return float(np.max(sent / count / (devices["download_mbps"] * 1.25e5)))


def _draw(fleet: Fleet, seed: int, round_num: int, count: int) -> dict[str, np.ndarray]:
    """Returns the devices of a cohort: float64 [count] by field."""
    generator = randomness.generator(seed, "fleet", abs(round_num), int(round_num < 0))
    share = fleet.table["share"].to_numpy(float)
    chosen = generator.choice(len(share), count, p=share / share.sum())
    devices = {name: fleet.table[name].to_numpy(float)[chosen] for name in _NUMBERS}
    speed, bandwidth = np.exp(
        generator.standard_normal((2, count)) * [[fleet.gflops_spread], [fleet.mbps_spread]]
    )
    devices["gflops"] = devices["gflops"] * speed
    for name in ("download_mbps", "upload_mbps"):
        devices[name] = devices[name] * bandwidth
    return devices
