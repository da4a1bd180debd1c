"""What tests of several folders load."""

from mjx_hkl.environments import load_environment
from mjx_hkl.environments.composition import EnvironmentConfig


def physics_environment(name: str) -> EnvironmentConfig:
    """The environment of that name, which is not a grid."""
    config = load_environment(name)
    assert isinstance(config, EnvironmentConfig)
    return config
