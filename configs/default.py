"""Every field at its default; docs/configuration.md lists them."""

from tff_autoprune import config as config_lib


def get_config():
    """Returns the configuration."""
    return config_lib.default()
