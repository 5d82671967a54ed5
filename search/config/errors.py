"""What a wrong order is answered with."""


class ConfigError(ValueError):
    """A setting of a job that cannot be meant."""
