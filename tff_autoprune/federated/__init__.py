"""Federated averaging of Keras models whose architecture may change between rounds.

engine = Engine(model, Settings(...))
state = engine.initialize()
state = engine.next(state, client_datasets).state
smaller = engine.with_model(smaller_model)
state = smaller.carry_state(state, removal)
"""

from tff_autoprune.federated import privacy
from tff_autoprune.federated.comparison import Comparison, Paired
from tff_autoprune.federated.engine import Engine, RoundResult, State
from tff_autoprune.federated.evaluation import evaluate_model
from tff_autoprune.federated.sampling import client_dataset, client_seed, sample_clients
from tff_autoprune.federated.settings import AggregatorSettings, Settings
from tff_autoprune.federated.task import Task

__all__ = [
    "AggregatorSettings",
    "Comparison",
    "Engine",
    "Paired",
    "RoundResult",
    "Settings",
    "State",
    "Task",
    "client_dataset",
    "client_seed",
    "evaluate_model",
    "privacy",
    "sample_clients",
]
