"""train: what the loop promises about order, rates, history and checkpoints."""

import math

import pytest
import torch

from gencore import data, nets, store, train, vae


class Counter:
    """A step that counts: its weight is the sum of what it has been given, times its rate."""

    def __init__(self):
        self.model = torch.nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.model.weight.zero_()
        self.optimiser = torch.optim.SGD(self.model.parameters(), 0.5)
        self.parts = {"model": self.model, "optimiser": self.optimiser}
        self.seen, self.rates = [], []

    def __call__(self, batch):
        self.seen.append(batch)
        self.rates.append(self.optimiser.param_groups[0]["lr"])
        nets.update(self.optimiser, -self.model.weight.sum())  # adds the rate
        return {"loss": float(batch), "square": float(batch) ** 2}


class Numbers:
    """Batches that are their own number, from 0."""

    def __init__(self):
        self.step = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.step += 1
        return self.step - 1


def test_the_loop_yields_after_the_update():
    step = Counter()
    for number, record in enumerate(train.loop(step, Numbers(), 5), 1):
        assert record.step == number == len(step.seen)
        assert step.model.weight.item() == pytest.approx(0.5 * number)
        assert record.losses == {"loss": number - 1, "square": (number - 1) ** 2}
    assert number == 5 and step.seen == [0, 1, 2, 3, 4]


def test_the_loop_does_nothing_that_is_not_asked_for():
    step = Counter()
    records = train.loop(step, Numbers(), 100)
    assert step.seen == []
    next(records), next(records)
    records.close()
    assert step.seen == [0, 1]
    assert list(train.loop(step, Numbers(), 0)) == []


def test_seconds_grow():
    seconds = [record.seconds for record in train.loop(Counter(), Numbers(), 20)]
    assert seconds == sorted(seconds) and 0 < seconds[0] < seconds[-1] < 60


def test_history_holds_the_mean_of_each_window():
    history = {}
    for record in train.loop(Counter(), Numbers(), 8, history=history, log_every=3):
        assert len(history.get("step", [])) == (record.step // 3 if record.step < 8 else 3)
    assert history["step"] == [3, 6, 8]
    assert history["loss"] == [1, 4, 6.5]
    assert history["square"] == pytest.approx([5 / 3, 50 / 3, 42.5], rel=1e-5)
    assert len(history["seconds"]) == len(history["cpu_seconds"]) == 3


def test_the_schedule_sets_the_rate_of_each_step():
    step = Counter()
    list(train.loop(step, Numbers(), 4, schedule=lambda index, steps: (index + 1) / steps))
    assert step.rates == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert step.model.weight.item() == pytest.approx(1.25)
    again = Counter()
    list(train.loop(again, Numbers(), 3))
    assert again.rates == [0.5, 0.5, 0.5]


def test_cosine_rises_and_falls():
    steps = 1000
    factors = [train.cosine(i, steps) for i in range(steps)]
    assert factors[0] == pytest.approx(1 / 51) and max(factors) == factors[50] == 1
    assert factors[:51] == sorted(factors[:51]) and factors[50:] == sorted(
        factors[50:], reverse=True
    )
    assert factors[525] == pytest.approx(0.5) and 0 < factors[-1] < 1e-4
    assert sum(factors) / steps == pytest.approx(0.5, abs=1e-3)
    assert all(0 < train.cosine(i, n) <= 1 for n in (1, 2, 3, 8, 30) for i in range(n))
    assert train.constant(3, 7) == 1


# checkpoints


def a_step(seed=0):
    torch.manual_seed(seed)
    return vae.Step(vae.VAE(2, size=8, width=2), seed=seed)


@pytest.fixture
def batches():
    images = torch.randint(
        0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return lambda: data.batches(images, 8, seed=1)


def test_without_a_folder_nothing_is_written(tmp_path, batches, monkeypatch):
    monkeypatch.chdir(tmp_path)
    list(train.loop(a_step(), batches(), 3))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_after_the_last_step_and_when_it_is_time(tmp_path, batches, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    folder, found = tmp_path / "run", []
    for _ in train.loop(a_step(), batches(), 7, checkpoint=folder, log_every=1):
        found.append(sorted(p.stem for p in folder.glob("*.json")))
        now[0] += 16  # two steps are 32 seconds, more than 30
    found.append(sorted(p.stem for p in folder.glob("*.json")))
    last = {names[-1] for names in found if names}
    assert last == {"step-00000002", "step-00000004", "step-00000006", "step-00000007"}
    assert len(list(folder.iterdir())) == 2, "the older ones are gone"


def test_a_checkpoint_waits_for_the_end_of_a_window(tmp_path, batches, monkeypatch):
    """Then the history in it is whole: nothing of it is lost by a kill."""
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1)
    seen = set()
    for _ in train.loop(a_step(), batches(), 7, checkpoint=tmp_path, log_every=3):
        seen |= {p.stem for p in tmp_path.glob("*.json")}
    assert seen == {"step-00000003", "step-00000006"}


def test_a_checkpoint_holds_every_part(tmp_path, batches):
    step = a_step()
    history = {}
    list(train.loop(step, batches(), 4, checkpoint=tmp_path, history=history, log_every=2))
    tensors, meta = store.load(tmp_path / "step-00000004")
    assert meta["step"] == 4 and meta["history"] == history
    assert torch.equal(tensors["noise"], step.generator.get_state())
    for name, value in step.model.state_dict().items():
        assert torch.equal(tensors[f"model/{name}"], value)
    slots = [k for k in tensors if k.startswith("optimiser/")]
    assert len(slots) == 3 * len(list(step.model.parameters()))


def test_a_finished_run_does_nothing_when_it_is_started_again(tmp_path, batches, capsys):
    history = train.fit(a_step(), batches(), 4, checkpoint=tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    step = a_step(5)
    step.optimiser.step = None  # would raise if it were called
    again = train.fit(step, batches(), 4, checkpoint=tmp_path)
    assert again == history == {} or again["step"] == [4]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert "Nothing left to do: 4 steps were done before." in capsys.readouterr().out


def test_resume_takes_the_newest_whole_checkpoint(tmp_path, capsys):
    model = torch.nn.Linear(2, 1)
    for index in (1, 2, 3):
        with torch.no_grad():
            model.weight.fill_(index)
        train.save_checkpoint(tmp_path / str(index), index, {"model": model}, {"step": [index]})
        for file in (tmp_path / str(index)).iterdir():
            file.replace(tmp_path / file.name)
    newest = tmp_path / "step-00000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    history = {}
    assert train.resume(tmp_path, {"model": model}, history) == 2
    assert model.weight.tolist() == [[2, 2]] and history == {"step": [2]}
    assert "Passing over a checkpoint" in capsys.readouterr().out
    (tmp_path / "step-00000002.safetensors").unlink()
    assert train.resume(tmp_path, {"model": model}, history) == 1
    (tmp_path / "step-00000001.json").write_bytes(b"{")
    assert train.resume(tmp_path, {"model": model}, history) == 0
    assert train.resume(tmp_path / "nowhere", {"model": model}, history) == 0


def test_checkpoints_are_removed_with_what_a_kill_left_beside_them(tmp_path, batches):
    folder = tmp_path / "run"
    list(train.loop(a_step(), batches(), 2, checkpoint=folder))
    (folder / ".step-00000001.safetensors-x7d_k2").write_bytes(b"half")
    train.remove_checkpoints(folder)
    assert not folder.exists()
    train.remove_checkpoints(folder)


# the progress bar


def test_fit_shows_its_progress_and_closes_with_one_line(capsys):
    history = train.fit(Counter(), Numbers(), 30, log_every=10)
    assert history["step"] == [10, 20, 30] and history["loss"] == [4.5, 14.5, 24.5]
    out, err = capsys.readouterr()
    assert err == "" and out.rstrip().splitlines()[-1].endswith(
        "Done: step 30, loss 29, square 841."
    )


def test_watch_passes_every_record_on(capsys):
    records = list(train.watch(train.loop(Counter(), Numbers(), 7), 7))
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6, 7]


class Interrupted(Counter):
    """Somebody presses the stop button in the middle of step `at`."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def __call__(self, batch):
        losses = super().__call__(batch) if len(self.seen) + 1 < self.at else None
        if losses is None:
            raise KeyboardInterrupt
        return losses


def test_an_interrupt_ends_fit_early_and_keeps_what_was_done(capsys):
    step = Interrupted(at=8)
    history = train.fit(step, Numbers(), 100, log_every=3)
    assert history["step"] == [3, 6] and history["loss"] == [1, 4]
    assert step.model.weight.item() == pytest.approx(0.5 * 7)
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert last.endswith("Stopped early, of 100 steps: step 7, loss 6, square 36.")


def test_an_interrupt_before_the_first_step_says_so(capsys):
    assert train.fit(Interrupted(at=1), Numbers(), 100) == {}
    out = capsys.readouterr().out
    assert "Stopped before the first step." in out and "Nothing left" not in out


def test_any_other_error_is_not_swallowed():
    class Broken(Counter):
        def __call__(self, batch):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train.fit(Broken(), Numbers(), 3)


# divergence


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("paper", ["vae", "sigma", "ae", "classifier"])
def test_a_bad_batch_stops_at_its_step_with_the_weights_before_it(paper, bad, mini):
    """Weights, optimiser and the running means of the buffers: all as after step 4."""

    def build():
        torch.manual_seed(0)
        if paper == "classifier":
            return nets.ClassifierStep(nets.Classifier(width=2))
        if paper == "ae":
            return vae.AutoencoderStep(vae.Autoencoder(2, width=2))
        options = {"likelihood": "gaussian", "sigma": "optimal"} if paper == "sigma" else {}
        return vae.Step(vae.VAE(2, width=2, **options))

    def run(images, steps):
        labels = mini.labels if paper == "classifier" else None
        step = build()
        history = {}
        records = train.loop(
            step, data.batches(images, 16, labels=labels), steps, history=history, log_every=2
        )
        return step, records, history

    images = mini.images.float() / 255
    batches = data.batches(images, 16)
    for _ in range(4):
        next(batches)
    order = batches._order
    spoiled = images.clone()
    spoiled[order[4 * 16 + 3], 0, 5, 5] = bad
    reference, records, _ = run(images, 4)
    list(records)
    step, records, history = run(spoiled, 50)
    with pytest.raises(
        nets.Diverged, match="diverged at step 5: .* weights are those of step 4"
    ) as caught:
        list(records)
    assert "\n" not in str(caught.value) and history["step"] == [2, 4]
    found = step.parts["model"].state_dict()
    for name, value in reference.parts["model"].state_dict().items():
        assert torch.isfinite(value.double()).all() and torch.equal(found[name], value), name
    slots = zip(step.optimiser.state.values(), reference.optimiser.state.values(), strict=True)
    for got, expected in slots:
        assert all(torch.equal(got[key], expected[key]) for key in expected)


def test_a_diverged_fit_raises_and_its_checkpoint_is_finite(tmp_path, batches, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1)
    step = a_step()
    step.optimiser.param_groups[0]["lr"] = 1e18
    with pytest.raises(nets.Diverged, match=r"Training diverged at step \d+: the gradient became"):
        train.fit(step, batches(), 50, checkpoint=tmp_path, log_every=1)
    tensors = store.load(next(tmp_path.glob("*.json")).with_suffix(""))[0]
    assert all(torch.isfinite(t.double()).all() for t in tensors.values())
