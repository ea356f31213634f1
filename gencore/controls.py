"""Controls for a living kernel: train a network again with other settings, and watch it learn.

They need a kernel to do anything, so in a page they are one line that says so.
"""

import inspect
import math
import threading
from dataclasses import replace

import ipywidgets as ui

from gencore import data, evaluate, runs, show, train

NOTE = (
    "Here the running notebook has controls: {}. They need a kernel and are not part of this page."
)


class Training(ui.VBox):
    """Train a published run again with other settings.

    `model` and `history` are the network and the records of the latest training, for the cells
    that follow; the published run is left alone. Training goes on beside the notebook: other
    cells run meanwhile, and Stop leaves a usable model. Sliders stand for what the run's paper has
    of latent dimension and β. Raises ValueError for a run that does not generate images.
    """

    def __init__(self, name, steps=400):
        self.config = runs.config(name)
        if not hasattr(self.config.paper.Model, "decode"):
            raise ValueError(f"{name} does not generate images: the controls train VAEs, say.")
        layout = {"width": "28em", "max_width": "95%"}
        wide = {"style": {"description_width": "9em"}, "layout": layout}
        start = self.config.model.get("latent_dim", 1)
        self.latent_dim = ui.IntSlider(start, 1, max(64, start), description="latent dimensions",
                                       **wide)  # fmt: skip
        beta, lr = self.config.objective.get("beta", 1.0), self.config.lr
        self.beta = ui.FloatLogSlider(beta, min=-2, max=1.5, step=0.1, description="β", **wide)
        top = max(-1.5, math.log10(lr))  # a slider would cut the run's own rate to its end
        self.lr = ui.FloatLogSlider(lr, min=-4, max=top, step=0.1, readout_format=".1e",
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
        options = inspect.signature(self.config.paper.Step).parameters
        self.has_beta, self.has_dim = "beta" in options, "latent_dim" in self.config.model
        sliders = [self.latent_dim] * self.has_dim + [self.beta] * self.has_beta
        super().__init__([*sliders, self.lr, self.steps,
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
        """Decode 16 new draws from the model's own prior with the model as it is now."""
        if self.model is None:
            return
        self.draws += 1
        training = self.model.training
        images = evaluate.sample(self.model.eval(), 16, self.draws)
        self.model.train(training)
        self.picture.value = show.png(show.grid(images))
        self.picture.layout.display = None

    def _train(self):
        try:
            self._steps()
        except Exception as error:  # in a thread nobody else would hear of it
            self.status.value = f"{type(error).__name__}: {error}"
        finally:
            self.go.description, self.again.disabled = "Train", self.model is None

    def _chosen(self):
        """The run's configuration with what the sliders say."""
        model, objective = dict(self.config.model), dict(self.config.objective)
        if self.has_dim:
            model["latent_dim"] = self.latent_dim.value
        if self.has_beta:
            objective["beta"] = self.beta.value
        return replace(self.config, model=model, objective=objective, lr=self.lr.value)

    def _steps(self):
        conf = self._chosen()
        dataset = data.load(conf.data)
        step = runs.begin(conf, dataset)
        batches = data.batches(dataset.train, conf.batch, conf.seed, device=train.device())
        self.model, self.history, total = step.model, {}, self.steps.value
        for record in train.loop(step, batches, total, history=self.history):
            if self.stopped.is_set():
                break
            if record.step % max(20, total // 20) == 0 or record.step == total:
                terms = ", ".join(f"{key} {value:.4g}" for key, value in record.losses.items())
                self.status.value = f"Step {record.step} of {total}: {terms}."
                self.sample()
        self.model.cpu()  # where the images and codes of the cells that follow are

    def _repr_mimebundle_(self, **options):
        bundle = super()._repr_mimebundle_(**options)
        words = "latent dimensions, β, learning rate, steps, Train, Sample again"
        return bundle | {
            "text/plain": "<controls: train again>",
            "text/html": f'<p class="gencore-kernel">{NOTE.format(words)}</p>',
        }
