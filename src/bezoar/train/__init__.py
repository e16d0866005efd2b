"""Training loops."""

from bezoar.train.adversarial import Adversary, ascended
from bezoar.train.augment import crop_and_flip, cut_out, shift_and_mirror
from bezoar.train.denoiser import DenoiserTraining, train_denoiser
from bezoar.train.energy import train_energy
from bezoar.train.energy_settings import EnergyTraining
from bezoar.train.epoch import run_epoch
from bezoar.train.loop import Training, train_classifier
from bezoar.train.vae import TrainedVAE, VAETraining, train_dvae

__all__ = [
    "Adversary",
    "DenoiserTraining",
    "EnergyTraining",
    "TrainedVAE",
    "Training",
    "VAETraining",
    "ascended",
    "crop_and_flip",
    "cut_out",
    "run_epoch",
    "shift_and_mirror",
    "train_classifier",
    "train_denoiser",
    "train_dvae",
    "train_energy",
]
