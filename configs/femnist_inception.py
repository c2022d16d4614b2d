"""FEMNIST and the naive Inception network, with the settings of arXiv 2411.01759."""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    return config_lib.reference(
        "femnist", "inception", clients_per_round=10, paper_k=2.5, paper_rounds=100
    )
