"""Every error this package raises on purpose.

BezoarError
  InputError      (also ValueError)         data or settings that a method cannot take
    EmptyError    (also LookupError)        there is nothing to scan
  ModelError      (also ValueError)         a model that cannot be loaded or used so
  DivergedError   (also ArithmeticError)    a loss or a sample is NaN or infinite
  UnscoreableError(also ArithmeticError)    a detector's scores would mean nothing
  StorageError    (also OSError)            a result cannot be written or read
  EngineError     (also RuntimeError)       no workers to run on, or they were lost
"""


class BezoarError(Exception):
    """Base of every error raised on purpose."""


class InputError(BezoarError, ValueError):
    """Data or settings that a method cannot take."""


class EmptyError(InputError, LookupError):
    """There is nothing to scan: no image, or none that can be read."""


class ModelError(BezoarError, ValueError):
    """A model that cannot be loaded, or lacks the layer or output asked for."""


class DivergedError(BezoarError, ArithmeticError):
    """A loss or a sample became NaN or infinite."""


class UnscoreableError(BezoarError, ArithmeticError):
    """A detector's scores would carry no information with these settings."""


class StorageError(BezoarError, OSError):
    """A result that cannot be written or read, or belongs to another run."""


class EngineError(BezoarError, RuntimeError):
    """Workers that cannot be had, or that were lost again and again."""
