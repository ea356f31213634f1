"""Controls for a living kernel: train a network again with other settings, and watch it learn.

They need a kernel to do anything, so in a page they are one line that says so.
"""

import threading
from dataclasses import replace

import ipywidgets as ui
import torch

from gencore import data, evaluate, runs, show, train, vae

NOTE = "Here the running notebook has controls: {}. They need a kernel and are not part of this page."


class Training(ui.VBox):
    """Train the VAE of a published run again with other settings.

    `model` and `history` are the network and the records of the latest training, for the cells
    that follow; the published run is left alone. Training goes on beside the notebook: other
    cells run meanwhile, and Stop leaves a usable model. Raises ValueError for a run that is no VAE.
    """

    def __init__(self, name, steps=400):
        self.config = runs.config(name)
        if self.config.paper != "vae":
            raise ValueError(f"{name} is a {self.config.paper}; the controls train a VAE: vae-mnist-d2.")
        wide = {"style": {"description_width": "9em"}, "layout": {"width": "28em", "max_width": "95%"}}
        start = self.config.model["latent_dim"]
        self.latent_dim = ui.IntSlider(start, 1, max(64, start), description="latent dimensions", **wide)
        self.beta = ui.FloatLogSlider(1, min=-2, max=1.5, step=0.1, description="β", **wide)
        self.lr = ui.FloatLogSlider(self.config.lr, min=-4, max=-1.5, step=0.1, readout_format=".1e",
                                    description="learning rate", **wide)  # fmt: skip
        self.steps = ui.IntSlider(steps, 20, 5000, 20, description="steps", **wide)
        self.go = ui.Button(description="Train", button_style="primary")
        self.again = ui.Button(description="Sample again", disabled=True)
        self.status = ui.HTML("Not trained yet.")
        self.picture = ui.Image(format="png", layout={"width": "28em"})
        self.picture.layout.display = "none"
        self.model, self.history, self.thread, self.draws = None, {}, None, 0
        self.go.on_click(lambda _: self.stop() if self.running else self.start())
        self.again.on_click(lambda _: self.sample())
        super().__init__([self.latent_dim, self.beta, self.lr, self.steps,
                          ui.HBox([self.go, self.again]), self.status, self.picture])  # fmt: skip

    @property
    def running(self):
        """Whether a training goes on at this moment."""
        return self.thread is not None and self.thread.is_alive()

    def start(self):
        """Begin a training in the background; the settings are those of the sliders."""
        if self.running:
            return
        self.stopped, self.go.description = threading.Event(), "Stop"
        self.thread = threading.Thread(target=self._train, daemon=True)
        self.thread.start()

    def stop(self):
        """End the training after the present step and wait for it."""
        if self.running:
            self.stopped.set()
            self.thread.join()

    def sample(self):
        """Decode 16 new draws from N(0, I) with the model as it is now."""
        if self.model is None:
            return
        self.draws += 1
        z = torch.randn(16, self.model.latent_dim, generator=torch.Generator().manual_seed(self.draws))
        self.picture.value = show.png(show.grid(evaluate.decode(self.model, z)))
        self.picture.layout.display = None

    def _train(self):
        try:
            self._steps()
        except Exception as error:  # in a thread nobody else would hear of it
            self.status.value = f"{type(error).__name__}: {error}"
        finally:
            self.go.description, self.again.disabled = "Train", self.model is None

    def _steps(self):
        conf = replace(self.config, model=self.config.model | {"latent_dim": self.latent_dim.value})
        model = runs.build(conf)
        step = vae.Step(model, self.lr.value, self.beta.value, seed=conf.seed)
        batches = data.batches(data.load(conf.data).train.images, conf.batch, conf.seed)
        self.model, self.history, total = model, {}, self.steps.value
        for record in train.loop(step, batches, total, history=self.history):
            if self.stopped.is_set():
                break
            if record.step % max(20, total // 20) == 0 or record.step == total:
                terms = ", ".join(f"{key} {value:.1f}" for key, value in record.losses.items())
                self.status.value = f"Step {record.step} of {total}: {terms} nats per image."
                self.sample()

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        words = "latent dimensions, β, learning rate, steps, Train, Sample again"
        return bundle | {
            "text/plain": "<controls: train again>",
            "text/html": f'<p class="gencore-kernel">{NOTE.format(words)}</p>',
        }
