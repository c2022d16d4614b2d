"""Real handwriting by 14 people, small and quick: for a first look and for tests."""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    config = config_lib.default()
    config.data.name = "digits"
    config.data.resize = 16
    config.model.name = "cnn"
    config.model.filters = (8, 16)
    # Validation is by 2 people. The data are public, so their sums may be seen.
    config.aggregator.min_clients = 2
    config.federated.rounds = 40
    config.federated.clients_per_round = 5
    config.federated.client_learning_rate = 5e-3
    config.federated.client_learning_rate_schedule = "cosine"
    return config
