"""Federated averaging of Keras models whose architecture may change between rounds.

engine = Engine(model, Settings(...))
state = engine.initialize()
state = engine.next(state, client_datasets).state
smaller = engine.with_model(smaller_model)
state = smaller.carry_state(state, removal)
"""

from tff_autoprune.federated import privacy
from tff_autoprune.federated.engine import Engine, RoundResult
from tff_autoprune.federated.evaluation import evaluate_model
from tff_autoprune.federated.sampling import client_dataset, sample_clients
from tff_autoprune.federated.settings import AggregatorSettings, Settings

__all__ = [
    "AggregatorSettings",
    "Engine",
    "RoundResult",
    "Settings",
    "client_dataset",
    "evaluate_model",
    "privacy",
    "sample_clients",
]
