"""One pass over images that lie on the device: shuffle, show, step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bezoar.shapes import Int64, UInt8
from bezoar.train.ranks import ALONE, Ranks

Augment = Callable[[Tensor, torch.Generator], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Harden = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]


def run_epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: UInt8[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    *,
    loss: Loss,
    rate: Callable[[float], float],
    batch_size: int,
    stream: torch.Generator,
    dtype: torch.dtype,
    augment: Augment | None = None,
    harden: Harden | None = None,
    ranks: Ranks = ALONE,
) -> tuple[float, float]:
    """Show every image once and step after each batch.

    Args:
        network: The network, in the mode that is wanted; changed in place.
        optimizer: Steps its weights.
        images: On the device of the network.
        labels: Class indices, on the same device.
        loss: Mean loss of a batch from logits in float32 and labels.
        rate: Step size when a share of this epoch's batches is done.
        batch_size: Images per step; the last, smaller batch is left out when it
            holds fewer than half of that.
        stream: Where the order and the augmentation come from.
        dtype: Type that the network computes in.
        augment: Changes a batch of stored images; None shows them as they are.
        harden: Changes a batch in [0, 1], told the network, the labels and the stream.
        ranks: The processes that share the epoch.

    Returns:
        Mean loss and accuracy over the images shown.
    """
    order = torch.randperm(len(images), generator=stream).to(images.device)
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) < batch_size / 2:
        batches.pop()  # a batch norm over a handful of images does harm
    losses, right, count = [], [], 0
    with drawing_from(stream, images.device):
        for step, picked in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = rate(step / len(batches))
            batch = images[picked]
            if augment is not None:
                batch = augment(batch, stream)
            batch, truth = ranks.share(batch), ranks.share(labels[picked])
            shown = (batch.float() / 255).contiguous(memory_format=torch.channels_last)
            half = dtype != torch.float32
            with torch.autocast(images.device.type, dtype, enabled=half):
                if harden is not None:
                    shown = harden(network, shown, truth, stream)
                output = network(shown)
            value = loss(output.float(), truth)
            optimizer.zero_grad()
            ranks.backward(value, network, weight=len(truth) / len(picked))
            optimizer.step()
            losses.append(value.detach() * len(truth))
            right.append((output.detach().argmax(1) == truth).sum())
            count += len(picked)
    total = ranks.total(torch.stack(losses).sum()) / count
    return total.item(), ranks.total(torch.stack(right).sum()).item() / count


@contextmanager
def drawing_from(stream: torch.Generator, device: torch.device) -> Iterator[None]:
    """Give numbers of a stream to what draws from the global generator, as dropout.

    Args:
        stream: The stream; it is not moved on.
        device: Where the network runs.

    Yields:
        Nothing; the global state is put back at the end.
    """
    seed = stream.initial_seed()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if devices:
            drawn = torch.Generator(device).manual_seed(seed)
            torch.cuda.set_rng_state(drawn.get_state(), device)
        yield
