"""A small adversarial paper on points: two optimisers, an average to publish, a lazy penalty."""

import torch
import torch.nn.functional as F
from torch import nn

from gencore import evaluate, latents, nets, train

TERMS = {"d": "loss of the critic, nats", "g": "loss of the generator, nats", "r1": "penalty, 1"}


def network(inputs, outputs, width):
    return nn.Sequential(nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, outputs))


class Model(nn.Module):
    """z -> a point; it infers nothing."""

    def __init__(self, latent_dim=4, width=16):
        super().__init__()
        self.generator = network(latent_dim, 2, width)
        self.priors = nn.ModuleDict({"prior": latents.Normal(latent_dim)})

    def decode(self, z):
        return self.generator(z)


class Counter:
    """How many steps were done."""

    done = 0

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


class Step:
    def __init__(self, model, split=None, lr=1e-3, seed=0, every=4):
        device = nets.device_of(model)
        self.trained, self.every, self.counter = model, every, Counter()
        self.average = train.EMA(model, 0.9)
        self.model = self.average.model
        self.critic = network(2, 1, 16).to(device)
        self.noise = latents.generator(seed, device)
        self.d, self.g = (torch.optim.Adam(m.parameters(), lr) for m in (self.critic, model))
        self.parts = {
            "trained": model, "average": self.average, "critic": self.critic, "noise": self.noise,
            "d": self.d, "g": self.g, "counter": self.counter,
        }  # fmt: skip

    def __call__(self, batch):
        fake = self.trained.decode(self.trained.priors["prior"].sample(len(batch.x), self.noise))
        loss = F.softplus(-self.critic(batch.x)).mean() + F.softplus(self.critic(fake.detach())).mean()
        terms, lazy = {"d": loss.item()}, self.counter.done % self.every == 0
        if lazy:
            x = batch.x.clone().requires_grad_()
            slope = torch.autograd.grad(self.critic(x).sum(), x, create_graph=True)[0]
            r1 = slope.square().sum(1).mean()
            loss = loss + r1
        train.update(self.d, loss)
        cheat = F.softplus(-self.critic(fake)).mean()
        train.update(self.g, cheat)
        self.average.update(self.trained)
        self.counter.done += 1
        return terms | {"g": cheat.item()} | ({"r1": r1.item()} if lazy else {})


def measure(model, dataset, n):
    return {**evaluate.distances(model, dataset, n), **evaluate.health(model, dataset)}
