"""Errors that a user can mend: each message says what is wrong, where, and what to do."""


class UserError(Exception):
    """Bad input: a config key, a data line, a model folder, a busy port. Programs print it and exit with 2."""


class ConfigError(UserError):
    """A config file that does not fit its model; the message names file, dotted key, value and remedy."""


class DataError(UserError):
    """Data that does not fit its format; the message lists every bad line with its remedy."""


class ArtifactError(UserError):
    """A model folder, manifest or verdict that is missing, incomplete or not what its hash says."""
