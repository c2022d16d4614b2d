"""The embedded writers, 200 rounds: what the results of the README are measured with.

Other networks: --config.model.name=resnet with --config.model.normalization=group, or inception
with --config.federated.client_learning_rate=4e-3 (at 8e-3 its filters die).
"""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    config = config_lib.default()
    config.data.name = "fontwriters"
    config.data.invert = True
    config.federated.rounds = 200
    config.federated.client_learning_rate = 8e-3
    config.federated.client_learning_rate_schedule = "linear"
    return config
