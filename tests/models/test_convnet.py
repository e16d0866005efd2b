import torch

from bezoar.models import convnet, tap


def test_parameters_are_those_of_five_stages_and_a_linear_layer() -> None:
    convs = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 2 * 128 * 128)
    norms = 2 * (32 + 64 + 3 * 128)
    linear = 128 * 10 + 10
    net = convnet(10)
    assert sum(p.numel() for p in net.parameters()) == convs + norms + linear


def test_the_last_stage_sees_the_whole_of_a_small_image() -> None:
    """A change of any pixel reaches the middle of the last map."""
    net = convnet(2, width=4).double().eval()
    images = torch.rand(1, 3, 32, 32).double().requires_grad_()
    with tap(net, "stage5") as tapped:
        net(images)
    assert tapped.output.shape == (1, 16, 4, 4)
    (slope,) = torch.autograd.grad(tapped.output[..., 1:3, 1:3].sum(), images)
    seen = slope.abs().sum((0, 1)) > 0
    assert seen[0].any()
    assert seen[-1].any()
    assert seen[:, 0].any()
    assert seen[:, -1].any()


def test_logits_follow_from_features() -> None:
    net = convnet(3, in_channels=1, width=4).eval()
    images = torch.rand(2, 1, 16, 16)
    expected = net.features(images) @ net.fc.weight.T + net.fc.bias
    assert net(images).equal(expected)


def test_first_weights_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (convnet(2, width=4, seed=s).fc.weight for s in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    assert one.equal(same)
    assert not one.equal(other)


def test_it_learns_to_tell_bright_from_dark() -> None:
    net = convnet(2, width=4)
    labels = torch.arange(16) % 2
    images = torch.rand(16, 3, 8, 8) * 0.5 + 0.5 * labels.view(-1, 1, 1, 1)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(10):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        torch.autograd.backward(loss)
        optimiser.step()
    assert net(images).argmax(1).equal(labels)
