"""CelebA and the small ResNet, with the settings of arXiv 2411.01759."""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    return config_lib.reference(
        "celeba", "resnet", clients_per_round=50, paper_k=2.0, paper_rounds=50
    )
