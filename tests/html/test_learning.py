"""Networks that learn in a page: values, gradients and Adam steps are PyTorch's."""

import numpy as np
import pytest
import torch
from small_networks import random_norms, rounded
from torch import nn
from torch.nn import functional as F

from gencore import embed, nets

pytest_plugins = ("figure_pages",)  # its fixtures

ACTIVATIONS = {
    "relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.3), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
    "centre": nets.Centre(), "silu": nn.SiLU(), "gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh"),
}  # fmt: skip
ADAM = {"lr": 0.02, "betas": [0.8, 0.95], "eps": 1e-8}

HELPERS = """const numbers = (layers, of) => layers.flatMap((layer, k) => layer.weight
    ? [Array.from(of[k].weight), Array.from(of[k].bias)] : [])
"""
THREE_STEPS = """([spec, x, dy, options]) => {
  HELPERS
  const layers = module.layersOf(spec), step = module.adam(layers, options), told = []
  for (let k = 0; k < 3; k++) {
    const passed = module.forward(layers, x), gradients = module.backward(layers, passed, dy)
    const told_now = {y: Array.from(passed.at(-1).data), input: Array.from(gradients.input),
      gradients: numbers(layers, gradients.layers)}
    step(gradients.layers)
    told.push({...told_now, weights: numbers(layers, layers)})
  }
  return told
}""".replace("HELPERS", HELPERS)


def dense(activation, seed=0):
    """A network with hidden layers, reshapings and the weights of a page, in float64."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 8), activation, nn.Unflatten(1, (2, 4)), nn.Flatten(),
                        nn.Linear(8, 5), activation, nn.Linear(5, 2))  # fmt: skip
    return rounded(net).double()


def normed():
    """Dense layers as those of the book's networks: a norm before each activation."""
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.SiLU(), nn.Unflatten(1, (2, 4)), nn.Flatten(),
                        nn.Linear(8, 5), nn.LayerNorm(5, eps=0.05), nn.SiLU(), nn.Linear(5, 2))  # fmt: skip
    return rounded(random_norms(net)).double()


def rows(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def close(found, wanted, least=2e-6):
    """Equal to float32's accuracy: 1e-5 of the value, or of the largest one."""
    wanted = wanted.detach().numpy().ravel()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=least * max(1, np.abs(wanted).max()))


NETS = {name: lambda name=name: dense(ACTIVATIONS[name]) for name in ACTIVATIONS} | {"layer norm": normed}


@pytest.mark.parametrize("name", NETS)
def test_values_gradients_and_three_adam_steps_are_pytorchs(module, name):
    net, x, dy = NETS[name](), rows(7, 3).requires_grad_(), rows(7, 2, seed=2)
    spec = embed.network(net, (3,))
    told = module(THREE_STEPS, [spec, x.flatten().tolist(), dy.flatten().tolist(), ADAM])
    optimiser = torch.optim.Adam(net.parameters(), **ADAM)
    for at in told:
        optimiser.zero_grad()
        x.grad, y = None, net(x)
        (y * dy).sum().backward()
        close(at["y"], y)
        close(at["input"], x.grad)
        for found, p in zip(at["gradients"], net.parameters(), strict=True):
            close(found, p.grad)
        optimiser.step()
        for found, p in zip(at["weights"], net.parameters(), strict=True):
            close(found, p, least=5e-6)


VALUES = """([op, v]) => {
  const layers = [{op, slope: 0.3}], passed = module.forward(layers, v)
  const slopes = module.backward(layers, passed, v.map(() => 1)).input
  return [Array.from(passed[1].data), Array.from(slopes)]
}"""


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_activation_is_pytorchs_far_out(module, name):
    v = torch.cat([torch.linspace(-12, 12, 2401), torch.tensor([-500.0, 500.0])]).double()
    v.requires_grad_()
    y = ACTIVATIONS[name](v)
    y.sum().backward()
    found, slopes = module(VALUES, [name, v.tolist()])
    close(found, y, least=1e-8)
    close(slopes, v.grad, least=1e-7)


def test_what_is_no_number_stays_none(module):
    for name in ACTIVATIONS:
        js = "op => Number.isNaN(module.forward([{op, slope: 1}], [NaN])[1].data[0])"
        assert module(js, name), name


@pytest.mark.parametrize("name", ["tanh", "gelu", "silu", "centre", "layer norm"])
def test_gradients_are_finite_differences(module, name):
    """Without PyTorch: the loss changes as its gradient says when any number is moved a little."""
    net, x, dy = NETS[name](), rows(4, 3), rows(4, 2, seed=2)
    js = """([spec, x, dy]) => {
      const layers = module.layersOf(spec), h = 2 ** -7
      const loss = () => module.forward(layers, x).at(-1).data.reduce((sum, v, i) => sum + v * dy[i], 0)
      const gradients = module.backward(layers, module.forward(layers, x), dy), pairs = []
      const check = (values, g) => values.forEach((v, i) => {
        values[i] = v + h
        const up = loss()
        values[i] = v - h
        pairs.push([g[i], (up - loss()) / (2 * h)])
        values[i] = v
      })
      layers.forEach((layer, k) => layer.weight && ['weight', 'bias'].forEach(
        name => check(layer[name], gradients.layers[k][name])))
      check(x, gradients.input)
      return pairs
    }"""
    pairs = module(js, [embed.network(net, (3,)), x.flatten().tolist(), dy.flatten().tolist()])
    found, wanted = np.array(pairs).T
    assert len(pairs) == sum(p.numel() for p in net.parameters()) + 4 * 3 and np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(found, wanted, atol=1e-3)


def test_the_gradient_of_an_image_goes_through_the_centre_of_an_encoder(module):
    """The derivative of 2 x - 1 is 2: with 1 in its place a picture would move half as far."""
    net = rounded(nn.Sequential(nets.Centre(), nn.Linear(4, 3), nn.LayerNorm(3), nn.SiLU())).double()
    x = rows(2, 4).requires_grad_()
    y = net(x)
    y.sum().backward()
    js = """([spec, x]) => {
      const layers = module.layersOf(spec), passed = module.forward(layers, x)
      const ones = passed.at(-1).data.map(() => 1)
      return [Array.from(passed.at(-1).data), Array.from(module.backward(layers, passed, ones).input)]
    }"""
    values, slopes = module(js, [embed.network(net, (4,)), x.flatten().tolist()])
    close(values, y)
    close(slopes, x.grad)


def test_what_cannot_be_trained_says_so(module):
    net = nn.Sequential(nn.Conv2d(1, 1, 3))
    js = """spec => {
      const layers = module.layersOf(spec), passed = module.forward(layers, Array(25).fill(1))
      try { module.backward(layers, passed, passed.at(-1).data) } catch (error) { return error.message }
    }"""
    assert "no gradients of a layer conv" in module(js, embed.network(net, (1, 5, 5)))


def test_a_learning_rate_can_change_on_the_way(module):
    net = rounded(nn.Sequential(nn.Linear(2, 1))).double()
    js = """spec => {
      const layers = module.layersOf(spec), step = module.adam(layers), before = layers[0].weight[0]
      step([{weight: [3, 3], bias: [3]}], 0.25)
      const after = layers[0].weight[0]
      step([{weight: [3, 3], bias: [3]}])
      return [after - before, layers[0].weight[0] - after]
    }"""
    assert module(js, embed.network(net, (2,))) == pytest.approx([-0.25, -1e-3], abs=1e-6)


TWO_NETWORKS = """([specD, specG, real, codes, options]) => {
  HELPERS
  const D = module.layersOf(specD), G = module.layersOf(specG), losses = []
  const stepD = module.adam(D, options), stepG = module.adam(G, options)
  for (let k = 0; k < real.length; k++) {
    const made = module.forward(G, codes[k])
    const onReal = module.forward(D, real[k]), onMade = module.forward(D, made.at(-1).data)
    const up = module.logistic(onReal.at(-1).data, 1), down = module.logistic(onMade.at(-1).data, -1)
    const a = module.backward(D, onReal, up.dy).layers, b = module.backward(D, onMade, down.dy).layers
    stepD(a.map((one, i) => one.weight ? {weight: one.weight.map((g, j) => g + b[i].weight[j]),
                                          bias: one.bias.map((g, j) => g + b[i].bias[j])} : {}))
    const again = module.forward(D, made.at(-1).data), wish = module.logistic(again.at(-1).data, 1)
    stepG(module.backward(G, made, module.backward(D, again, wish.dy).input).layers)
    losses.push([up.loss + down.loss, wish.loss])
  }
  return {losses, D: numbers(D, D), G: numbers(G, G)}
}""".replace("HELPERS", HELPERS)


def test_two_networks_play_as_in_pytorch(module):
    """The GAN of Goodfellow et al. (2014) on points in the plane, not saturating: four updates of each."""
    torch.manual_seed(0)
    D = nn.Sequential(
        nn.Linear(2, 16), nn.LeakyReLU(0.2), nn.Linear(16, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1)
    )
    G = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))
    D, G = rounded(D).double(), rounded(G).double()
    real, codes = rows(4, 32, 2) + 2, rows(4, 32, 2, seed=3)
    specs = [embed.network(net, (2,)) for net in (D, G)]
    told = module(TWO_NETWORKS, [*specs, real.flatten(1).tolist(), codes.flatten(1).tolist(), ADAM])
    step_d, step_g = (torch.optim.Adam(net.parameters(), **ADAM) for net in (D, G))
    for x, z, (found_d, found_g) in zip(real, codes, told["losses"], strict=True):
        step_d.zero_grad()
        loss_d = F.softplus(-D(x)).mean() + F.softplus(D(G(z).detach())).mean()
        loss_d.backward()
        step_d.step()
        step_g.zero_grad()
        loss_g = F.softplus(-D(G(z))).mean()
        loss_g.backward()
        step_g.step()
        assert [found_d, found_g] == pytest.approx([loss_d.item(), loss_g.item()], rel=2e-5)
    for found, net in ((told["D"], D), (told["G"], G)):
        for numbers, p in zip(found, net.parameters(), strict=True):
            close(numbers, p, least=1e-5)


def test_losses_do_not_overflow(module):
    told = module(
        "() => [module.softplus(1000), module.softplus(-1000), module.logistic([-1000, 1000], 1)]"
    )
    assert told[:2] == [1000, 0]
    assert told[2]["loss"] == 500 and told[2]["dy"] == [-0.5, 0]
