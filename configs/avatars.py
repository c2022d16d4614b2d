"""The embedded faces, 100 rounds: what the results of the README are measured with.

Other networks: --config.model.name=resnet.
"""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    config = config_lib.default()
    config.data.name = "avatars"
    config.federated.rounds = 100
    config.federated.client_learning_rate = 1e-3
    config.federated.client_learning_rate_schedule = "linear"
    return config
