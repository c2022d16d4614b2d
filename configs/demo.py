"""The demonstration: a CNN learns to read the embedded writers and shrinks by itself."""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    config = config_lib.default()
    config.data.name = "fontwriters"
    config.data.invert = True
    config.model.name = "cnn"
    config.federated.rounds = 80
    # The recipe of configs/fontwriters.py, which says why.
    config.federated.client_learning_rate = 3.2e-2
    config.federated.client_epsilon = 1e-3
    config.federated.client_learning_rate_schedule = "linear"
    config.pruning.method = "auto"
    # Small networks jitter more from round to round than large ones; the mean of the last does not.
    config.federated.average_share = 0.2
    return config
