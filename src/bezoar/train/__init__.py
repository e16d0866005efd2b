"""Training loops."""

from bezoar.train.adversarial import Adversary, ascended
from bezoar.train.attention_losses import (
    attention_loss,
    attention_map,
    clone_loss,
    widened,
)
from bezoar.train.augment import crop_and_flip, cut_out, shift_and_mirror
from bezoar.train.checkpoint_file import forget_training
from bezoar.train.clip import PairBatch, PairObjective, contrast, train_clip
from bezoar.train.clip_losses import clip_loss, unimodal_loss
from bezoar.train.clip_settings import ClipTraining, decay_groups
from bezoar.train.denoiser import DenoiserTraining, train_denoiser
from bezoar.train.distillation import distil
from bezoar.train.encoder_losses import nt_xent, sup_con
from bezoar.train.encoder_protocol import Distilled, EncoderProtocol, step_size
from bezoar.train.energy import train_energy
from bezoar.train.energy_settings import EnergyTraining
from bezoar.train.epoch import run_epoch
from bezoar.train.erasing import UEraser
from bezoar.train.friendly_noise import (
    FriendlyNoise,
    RandomNoise,
    train_with_friendly_noise,
)
from bezoar.train.loop import Training, train_classifier
from bezoar.train.probe import HeadTraining, train_head
from bezoar.train.ranks import Ranks
from bezoar.train.simclr import EncoderTraining, train_simclr
from bezoar.train.vae import TrainedVAE, VAETraining, train_dvae
from bezoar.train.views import Views

__all__ = [
    "Adversary",
    "ClipTraining",
    "DenoiserTraining",
    "Distilled",
    "EncoderProtocol",
    "EncoderTraining",
    "EnergyTraining",
    "FriendlyNoise",
    "HeadTraining",
    "PairBatch",
    "PairObjective",
    "RandomNoise",
    "Ranks",
    "TrainedVAE",
    "Training",
    "UEraser",
    "VAETraining",
    "Views",
    "ascended",
    "attention_loss",
    "attention_map",
    "clip_loss",
    "clone_loss",
    "contrast",
    "crop_and_flip",
    "cut_out",
    "decay_groups",
    "distil",
    "forget_training",
    "nt_xent",
    "run_epoch",
    "shift_and_mirror",
    "step_size",
    "sup_con",
    "train_classifier",
    "train_clip",
    "train_denoiser",
    "train_dvae",
    "train_energy",
    "train_head",
    "train_simclr",
    "train_with_friendly_noise",
    "unimodal_loss",
    "widened",
]
