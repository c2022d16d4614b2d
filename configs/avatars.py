"""The embedded faces, 200 rounds: what the results of the README are measured with.

Other networks: --config.model.name=resnet.
"""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    config = config_lib.default()
    config.data.name = "avatars"
    config.federated.rounds = 200
    # All pictures of a client have one label. Adam's steps are as large for a client whose pictures
    # are all told right already as for any other, so its averages swing from class to class.
    config.federated.client_optimizer = "sgd"
    config.federated.client_learning_rate = 0.1
    config.federated.client_learning_rate_schedule = "linear"
    return config
