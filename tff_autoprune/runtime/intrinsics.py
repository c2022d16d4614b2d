"""TFF's federated operators over a cohort of clients in this process.

Sums add the clients in the order of the cohort, so that a result does not depend on which client
finished first.
"""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tff_autoprune.runtime.values import AtClients, AtServer


class Clients:
    """The clients of a call, and the threads they run in.

    Attributes:
      num_clients: How many there are.
    """

    def __init__(self, num_clients: int, pool: concurrent.futures.ThreadPoolExecutor) -> None:
        """Takes clients to run in `pool`."""
        self.num_clients = num_clients
        self._pool = pool

    def map(self, function: Callable[[Any], Any], values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Applies a function to the value of each client, several clients at once.

        Raises:
          Exception: That of the first client, in the cohort's order, that failed; clients not yet
            started are not started then.
        """
        return self._gather([self._pool.submit(function, value) for value in values])

    def _gather(self, futures: list[concurrent.futures.Future]) -> tuple[Any, ...]:
        try:
            return tuple(future.result() for future in futures)
        finally:
            for future in futures:
                future.cancel()


def _map_leaves(function: Callable[..., Any], *trees: Any) -> Any:
    if isinstance(trees[0], tuple):
        return tuple(_map_leaves(function, *children) for children in zip(*trees))
    return function(*(np.asarray(tree) for tree in trees))


def _reduce(operator: Callable[..., Any], values: Iterable[Any]) -> Any:
    return functools.reduce(functools.partial(_map_leaves, operator), values)


def _map(cohort: Clients, argument: Any) -> Any:
    function, operand = argument
    if isinstance(operand, AtServer):
        return AtServer(function(operand.value))
    return AtClients(cohort.map(function, operand.values))


def _broadcast(cohort: Clients, argument: AtServer) -> AtClients:
    return AtClients((argument.value,) * cohort.num_clients)


def _eval_at_clients(cohort: Clients, function: Callable[[None], Any]) -> AtClients:
    return AtClients(cohort.map(function, (None,) * cohort.num_clients))


def _value_at_clients(cohort: Clients, value: Any) -> AtClients:
    return AtClients((value,) * cohort.num_clients)


def _zip_at_clients(cohort: Clients, argument: Any) -> AtClients:
    def of_client(tree: Any, client: int) -> Any:
        if isinstance(tree, AtClients):
            return tree.values[client]
        return tuple(of_client(child, client) for child in tree)

    return AtClients(tuple(of_client(argument, i) for i in range(cohort.num_clients)))


def _zip_at_server(cohort: Clients, argument: Any) -> AtServer:
    def unplaced(tree: Any) -> Any:
        if isinstance(tree, AtServer):
            return tree.value
        return tuple(unplaced(child) for child in tree)

    return AtServer(unplaced(argument))


def _aggregate(cohort: Clients, argument: Any) -> AtServer:
    clients, zero, accumulate, _, report = argument
    accumulator = zero
    for value in clients.values:
        accumulator = accumulate((accumulator, value))
    return AtServer(report(accumulator))


def _sum(cohort: Clients, clients: AtClients) -> AtServer:
    return AtServer(_reduce(np.add, clients.values))


def _mean(cohort: Clients, clients: AtClients) -> AtServer:
    total = _reduce(np.add, clients.values)
    return AtServer(_map_leaves(lambda t: _divide(t, len(clients.values)), total))


def _weighted_mean(cohort: Clients, argument: Any) -> AtServer:
    clients, weights = argument
    total_weight = np.asarray(_reduce(np.add, weights.values))
    # One after the other: a scaled copy of every update at once would cost much memory.
    total = _reduce(np.add, map(_scale, clients.values, weights.values))
    return AtServer(_map_leaves(lambda t: _divide(t, total_weight), total))


def _scale(value: Any, weight: Any) -> Any:
    return _map_leaves(lambda v: np.multiply(v, np.asarray(weight)), value)


def _divide(total: np.ndarray, count: Any) -> np.ndarray:
    # 0 / 0 is NaN, as in TFF; whoever takes the mean rejects it.
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.divide(total, count), total.dtype)


def _secure_sum(cohort: Clients, argument: Any) -> AtServer:
    clients, max_input = argument
    return _checked_sum(clients, max_input)


def _secure_sum_bitwidth(cohort: Clients, argument: Any) -> AtServer:
    clients, bitwidth = argument
    return _checked_sum(clients, _map_leaves(lambda b: 2 ** b.astype(np.int64) - 1, bitwidth))


def _checked_sum(clients: AtClients, max_input: Any) -> AtServer:
    def check(limit: Any, tree: Any) -> None:
        if isinstance(tree, tuple):
            limits = limit if isinstance(limit, tuple) else (limit,) * len(tree)
            for child_limit, child in zip(limits, tree):
                check(child_limit, child)
        elif np.size(tree) and np.max(np.asarray(tree)) > np.asarray(limit):
            raise ValueError(
                f"A client's summand {np.max(np.asarray(tree))} is larger than the"
                f" {np.asarray(limit)} that secure summation was set up for."
            )

    for value in clients.values:
        check(max_input, value)
    return _sum(None, clients)


def _secure_modular_sum(cohort: Clients, argument: Any) -> AtServer:
    clients, modulus = argument
    total = _reduce(np.add, clients.values)
    if isinstance(modulus, tuple):
        return AtServer(_map_leaves(np.mod, total, modulus))
    return AtServer(_map_leaves(lambda t: np.mod(t, np.asarray(modulus)), total))


# Secure summation reveals sums only. Here, where all clients are simulated in one process, it is
# the plain sum of the same integers: same numbers, no cryptography.
INTRINSICS: dict[str, Callable[[Clients, Any], Any]] = {
    "federated_aggregate": _aggregate,
    "federated_apply": _map,
    "federated_broadcast": _broadcast,
    "federated_eval_at_clients": _eval_at_clients,
    "federated_eval_at_server": lambda cohort, function: AtServer(function(None)),
    "federated_map": _map,
    "federated_map_all_equal": _map,
    "federated_max": lambda cohort, clients: AtServer(_reduce(np.maximum, clients.values)),
    "federated_mean": _mean,
    "federated_min": lambda cohort, clients: AtServer(_reduce(np.minimum, clients.values)),
    "federated_secure_modular_sum": _secure_modular_sum,
    "federated_secure_sum": _secure_sum,
    "federated_secure_sum_bitwidth": _secure_sum_bitwidth,
    "federated_sum": _sum,
    "federated_value_at_clients": _value_at_clients,
    "federated_value_at_server": lambda cohort, value: AtServer(value),
    "federated_weighted_mean": _weighted_mean,
    "federated_zip_at_clients": _zip_at_clients,
    "federated_zip_at_server": _zip_at_server,
}
