"""Training loops."""

from bezoar.train.loop import Training, train_classifier

__all__ = ["Training", "train_classifier"]
