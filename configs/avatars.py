"""The embedded faces, 200 rounds: what docs/results.md is measured with.

Other networks: --config.model.name=resnet --config.model.normalization=group.
"""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    config = config_lib.default()
    config.data.name = "avatars"
    config.federated.rounds = 200
    # All pictures of a client have one label, so that a client that trains for long learns nothing
    # but its label. Each takes a single step on all of its pictures, and the server's Adam makes
    # the way: the clients' learning rate only lifts the updates well above Adam's epsilon.
    config.federated.clients_per_round = 50
    config.federated.local_epochs = 1
    config.federated.batch_size = 40
    config.federated.client_optimizer = "sgd"
    config.federated.client_learning_rate = 10.0
    config.federated.client_learning_rate_schedule = "linear"
    config.federated.server_optimizer = "adam"
    config.federated.server_learning_rate = 2e-3
    # Small networks jitter more from round to round than large ones; the mean of the last does not.
    config.federated.average_share = 0.2
    return config
