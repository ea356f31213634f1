"""train: what the loop promises about order, rates, history, checkpoints and divergence."""

import math
import os
from copy import deepcopy as copy_of

import numpy as np
import pytest
import torch
import tqdm
from small_networks import SMALL

from gencore import ae, checkpoint, classifier, data, linear, store, train, vae


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
        train.update(self.optimiser, -self.model.weight.sum())  # adds the rate
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


class Lazy(Counter):
    """A step with a penalty in every fourth step only, beginning with number 2."""

    def __call__(self, batch):
        terms = super().__call__(batch)
        return {"loss": terms["loss"]} | ({"penalty": terms["square"]} if batch % 4 == 2 else {})


def test_a_lazy_term_is_averaged_over_the_steps_that_reported_it():
    history = {}
    list(train.loop(Lazy(), Numbers(), 20, history=history, log_every=8))
    assert history["step"] == [8, 16, 20] and history["loss"] == [3.5, 11.5, 17.5]
    assert history["penalty"] == [(2**2 + 6**2) / 2, (10**2 + 14**2) / 2, 18**2], "not over all eight"


def test_a_window_without_a_term_says_so_from_the_first_to_the_last():
    history = {}
    list(train.loop(Lazy(), Numbers(), 9, history=history, log_every=2))
    assert history["step"] == [2, 4, 6, 8, 9]
    assert history["penalty"] == [None, 4, None, 36, None]
    assert {len(column) for column in history.values()} == {5}


def test_seconds_of_a_window_are_those_of_its_steps_and_not_of_the_consumer(monkeypatch):
    now, cpu = [0.0], [0.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(train.time, "process_time", lambda: cpu[0])

    class Slow(Counter):
        def __call__(self, batch):
            now[0], cpu[0] = now[0] + 2, cpu[0] + 3
            return super().__call__(batch)

    history, seen = {}, []
    for record in train.loop(Slow(), Numbers(), 5, history=history, log_every=2):
        seen.append(record.seconds)
        now[0], cpu[0] = now[0] + 100, cpu[0] + 100
    assert history["seconds"] == [4, 4, 2] and history["cpu_seconds"] == [6, 6, 3]
    assert seen == [2, 104, 206, 308, 410]


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
    return vae.Step(vae.Model(2, size=8, **SMALL), seed=seed)


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


@pytest.mark.parametrize("log_every", [1, 50])
def test_the_first_checkpoint_comes_after_5_seconds_and_others_30_later_by_time_alone(
    tmp_path, batches, monkeypatch, log_every
):
    """16 seconds a step: past 5 at step 1, past 1 x 16 + 30 at step 3, and so on; never by a window."""
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    folder, found = tmp_path / "run", []
    for _ in train.loop(a_step(), batches(), 8, checkpoint=folder, log_every=log_every):
        found.append(max((p.stem for p in folder.glob("*.json")), default=None))
        now[0] += 16
    found.append(max(p.stem for p in folder.glob("*.json")))
    saved = {name: 1 + i for i, name in reversed([*enumerate(found[1:])])}
    assert saved == {f"step-{n:08d}": n for n in (1, 3, 5, 7, 8)}, "each is there when the next step begins"
    assert len([p for p in folder.iterdir() if p.name[0] != "."]) == 2, "the older ones are gone"


def test_within_5_seconds_nothing_is_written_but_the_last_step(tmp_path, batches, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    for record in train.loop(a_step(), batches(), 5, checkpoint=tmp_path, log_every=1):
        now[0] += 1
        assert not list(tmp_path.glob("*.json")), record.step
    assert [p.stem for p in tmp_path.glob("*.json")] == ["step-00000005"]


def test_a_checkpoint_in_the_middle_of_a_window_keeps_the_means_and_the_seconds(tmp_path, batches, monkeypatch):
    """Killed after step 5 of windows of 4: the second entry is of steps 5 to 8, not of 6 to 8."""
    monkeypatch.setattr(train, "FIRST_CHECKPOINT", -1)
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1)
    straight = {}
    list(train.loop(Lazy(), Numbers(), 10, history=straight, log_every=4))
    for killed in (1, 5, 6, 7):
        folder = tmp_path / str(killed)
        first = train.loop(Lazy(), Numbers(), 10, folder, {}, log_every=4)
        for _ in range(killed + 1):
            next(first)  # the checkpoint of step `killed` is written when the next step is asked for
        first.close()
        history = {}
        list(train.loop(Lazy(), Numbers(), 10, folder, history, log_every=4))
        for name in ("step", "loss", "penalty"):
            assert history[name] == straight[name], (killed, name)
        assert all(second > 0 for second in history["seconds"]) or min(history["seconds"]) == 0


def test_a_checkpoint_holds_every_part(tmp_path, batches):
    step = a_step()
    history = {}
    list(train.loop(step, batches(), 4, checkpoint=tmp_path, history=history, log_every=2))
    tensors, meta = store.load(tmp_path / "step-00000004")
    assert meta["step"] == 4 and meta["history"] == history
    assert set(meta["outline"]) == {*step.parts, "window"}
    assert torch.equal(tensors["noise"], step.generator.get_state())
    for name, value in step.model.state_dict().items():
        assert torch.equal(tensors[f"model/{name}"], value)
    slots = [k for k in tensors if k.startswith("optimiser/")]
    assert len(slots) == 3 * len([p for p in step.model.parameters() if p.grad is not None])


def test_a_finished_run_does_nothing_when_it_is_started_again(tmp_path, batches, capsys):
    history = train.fit(a_step(), batches(), 4, checkpoint=tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    step = a_step(5)
    step.optimiser.step = None  # would raise if it were called
    again = train.fit(step, batches(), 4, checkpoint=tmp_path)
    assert again == history == {} or again["step"] == [4]
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert "Nothing left to do: 4 steps were done before." in capsys.readouterr().out


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


@pytest.fixture
def bars(monkeypatch):
    """All progress bars that were opened: each with `.total` and `.seen`, what it stood at."""
    opened = []

    class Bar(tqdm.tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options | {"mininterval": 0})
            self.seen = []
            opened.append(self)

        def update(self, n=1):
            super().update(n)
            self.seen.append(self.n)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    return opened


def test_the_progress_bar_stands_at_the_steps_that_were_done(bars, capsys):
    train.fit(Counter(), Numbers(), 7)
    (bar,) = bars
    assert bar.total == 7 and bar.seen == [1, 2, 3, 4, 5, 6, 7] and bar.disable, "closed"


def test_the_progress_bar_of_a_resumed_run_begins_where_it_was(bars, tmp_path, capsys):
    train.fit(Counter(), Numbers(), 4, checkpoint=tmp_path)
    train.fit(Counter(), Numbers(), 7, checkpoint=tmp_path)
    assert bars[1].seen == [5, 6, 7] and bars[1].total == 7
    assert capsys.readouterr().out.rstrip().endswith("Done: step 7, loss 6, square 36.")


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


def test_whoever_consumes_the_loop_sees_the_interrupt(capsys):
    history, seen = {}, []
    with pytest.raises(KeyboardInterrupt):
        for record in train.loop(Interrupted(at=5), Numbers(), 100, history=history, log_every=2):
            seen.append(record.step)
    assert seen == [1, 2, 3, 4] and history["step"] == [2, 4]
    with pytest.raises(KeyboardInterrupt):
        list(train.watch(train.loop(Interrupted(at=5), Numbers(), 100), 100))
    assert "Stopped early, of 100 steps: step 4, loss 3, square 9." in capsys.readouterr().out


def test_an_interrupt_between_two_steps_reaches_the_consumer_of_watch(capsys):
    with pytest.raises(KeyboardInterrupt):
        for record in train.watch(train.loop(Counter(), Numbers(), 100), 100):
            if record.step == 3:
                raise KeyboardInterrupt
    assert "Stopped early, of 100 steps: step 3" in capsys.readouterr().out


def test_an_interrupt_at_the_last_checkpoint_does_not_count_as_finished(tmp_path, batches, monkeypatch, capsys):
    """All steps are done and nothing is on the disk: the consumer hears of it, and the run goes on."""

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(train.watch(train.loop(a_step(), batches(), 3, checkpoint=tmp_path), 3))
        history = train.fit(a_step(), batches(), 3, checkpoint=tmp_path)
        assert history["step"] == [3], "fit has swallowed it; the model is trained all the same"
    assert not list(tmp_path.iterdir())
    records = list(train.loop(a_step(), batches(), 3, checkpoint=tmp_path))
    assert [record.step for record in records] == [1, 2, 3]


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
            return classifier.Step(classifier.Model(width=2))
        if paper == "ae":
            return ae.Step(ae.Model(2, **SMALL))
        options = {"likelihood": "gaussian", "sigma": "optimal"} if paper == "sigma" else {}
        return vae.Step(vae.Model(2, **SMALL, **options))

    def run(images, steps):
        step, history = build(), {}
        split = data.Split(images, mini.labels)
        return step, train.loop(step, data.batches(split, 16), steps, history=history, log_every=2), history

    images = mini.images.float() / 255
    batches = data.batches(images, 16)
    batches.step = 4
    row = next(batches).rows[3]
    spoiled = images.clone()
    spoiled[row, 0, 5, 5] = bad
    reference, records, _ = run(images, 4)
    list(records)
    step, records, history = run(spoiled, 50)
    with pytest.raises(
        train.Diverged, match="diverged at step 5: .* weights are those of step 4"
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
    monkeypatch.setattr(train, "FIRST_CHECKPOINT", -1)
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1)
    step = a_step()
    step.optimiser.param_groups[0]["lr"] = 1e18
    with pytest.raises(train.Diverged, match=r"Training diverged at step \d+: the gradient became"):
        train.fit(step, batches(), 50, checkpoint=tmp_path, log_every=1)
    tensors = store.load(next(tmp_path.glob("*.json")).with_suffix(""))[0]
    assert all(torch.isfinite(t.double()).all() for t in tensors.values())


class Duel:
    """Two networks, each with its optimiser, noise and running means; the second can be made to diverge."""

    def __init__(self, spoil=(), seed=0):
        torch.manual_seed(seed)
        self.first = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
        self.second, self.noise = torch.nn.Linear(2, 1), torch.Generator().manual_seed(seed)
        self.one = torch.optim.Adam(self.first.parameters(), 0.01)
        self.two = torch.optim.SGD(self.second.parameters(), 0.01, momentum=0.9)
        self.average, self.spoil, self.calls = train.EMA(self.first, 0.9), set(spoil), 0
        self.model = self.average.model
        self.parts = {"first": self.first, "second": self.second, "one": self.one, "two": self.two,
                      "noise": self.noise, "average": self.average}  # fmt: skip

    def __call__(self, number):
        self.calls += 1
        x = torch.randn(8, 2, generator=self.noise) + number / 10
        loss = self.first(x).square().mean()
        train.update(self.one, loss)
        self.average.update(self.first)
        bad = math.nan if number in self.spoil else 1.0
        train.update(self.two, bad * (self.second(x) - 1).square().mean())
        return {"loss": loss.item()}

    def bits(self):
        tensors, outline = checkpoint.capture(self.parts)
        return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, outline


@pytest.mark.parametrize("at", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("log_every", [1, 4, 50])
def test_divergence_in_the_second_optimiser_brings_both_back_to_the_last_whole_step(at, log_every):
    """Weights, averages, running means, generators and rates: as of a run that ended one step before."""
    reference, broken = Duel(), Duel(spoil=[at - 1])
    list(train.loop(reference, Numbers(), at - 1, log_every=log_every))
    records = train.loop(broken, Numbers(), 20, log_every=log_every)
    words = f"Training diverged at step {at}: the gradient became nan .*weights are those of step {at - 1};"
    with pytest.raises(train.Diverged, match=words):
        list(records)
    assert broken.bits() == reference.bits()


def test_the_replay_takes_each_steps_own_rate_and_batch():
    """The steps since the copy are repeated under the schedule, each on its batch."""
    schedule, reference, broken = train.cosine, Duel(), Duel(spoil=[6])
    records = train.loop(reference, Numbers(), 20, schedule=schedule)
    for _ in range(6):
        next(records)
    with pytest.raises(train.Diverged):
        list(train.loop(broken, Numbers(), 20, schedule=schedule))
    assert broken.bits() == reference.bits() and broken.calls == 6 + 1 + 6


def test_a_resumed_run_that_diverges_goes_back_no_further_than_it_must(tmp_path):
    reference = Duel()
    list(train.loop(reference, Numbers(), 5))
    list(train.loop(Duel(), Numbers(), 3, checkpoint=tmp_path))
    broken = Duel(spoil=[5], seed=9)
    with pytest.raises(train.Diverged, match="at step 6: .* those of step 5;"):
        list(train.loop(broken, Numbers(), 20, checkpoint=tmp_path))
    assert broken.bits() == reference.bits()
    assert [p.stem for p in tmp_path.glob("*.json")] == ["step-00000003"]


class Chance(Duel):
    """A duel whose second network drops units, with the numbers of torch's own generator."""

    def __init__(self, spoil=(), seed=0):
        super().__init__(spoil, seed)
        self.dropout = torch.nn.Dropout(0.5)

    def __call__(self, number):
        x = self.dropout(torch.ones(8, 2))
        train.update(self.two, (self.second(x) - 1).square().mean())
        return super().__call__(number)


def test_what_torchs_own_generator_draws_in_a_step_is_repeated_and_leaves_the_readers_alone(tmp_path):
    reference, broken = Chance(), Chance(spoil=[7])
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(train.loop(reference, Numbers(), 7))
    assert torch.equal(torch.rand(3), expected)
    with pytest.raises(train.Diverged, match="at step 8: .* those of step 7;"):
        list(train.loop(broken, Numbers(), 20))
    assert broken.bits() == reference.bits()
    list(train.loop(Chance(), Numbers(), 4, checkpoint=tmp_path))
    torch.manual_seed(99)
    resumed = Chance(seed=3)
    list(train.loop(resumed, Numbers(), 7, checkpoint=tmp_path))
    assert resumed.bits() == reference.bits()


def test_a_counter_goes_on_where_it_was(tmp_path):
    class Counted(Duel):
        def __init__(self):
            super().__init__()
            self.parts["count"] = self.count = train.Counter()

        def __call__(self, number):
            self.count.value += 1
            return super().__call__(number)

    list(train.loop(Counted(), Numbers(), 3, checkpoint=tmp_path))
    resumed = Counted()
    list(train.loop(resumed, Numbers(), 5, checkpoint=tmp_path))
    assert resumed.count.value == 5


def test_a_part_without_state_is_refused_by_its_name():
    step = Duel()
    step.parts["turn"] = 3
    with pytest.raises(TypeError, match="The part 'turn' is a int, which has no state_dict: parts are"):
        list(train.loop(step, Numbers(), 1))


def test_what_the_loop_keeps_beside_the_step_is_in_the_checkpoint_and_not_rewound(tmp_path):
    class Taken:
        steps = []

        def state_dict(self):
            return {"steps": list(self.steps)}

        def load_state_dict(self, state):
            self.steps = state["steps"]

    taken = Taken()
    with pytest.raises(train.Diverged):
        for record in train.loop(Duel(spoil=[6]), Numbers(), 20, extra={"taken": taken}):
            taken.steps = [*taken.steps, record.step]
    assert taken.steps == [1, 2, 3, 4, 5, 6]
    list(train.loop(Duel(), Numbers(), 2, checkpoint=tmp_path, extra={"taken": taken}))
    other = Taken()
    list(train.loop(Duel(), Numbers(), 2, checkpoint=tmp_path, extra={"taken": other}))
    assert other.steps == taken.steps


def test_a_step_that_does_not_repeat_itself_goes_back_to_the_copy_and_says_which_it_is():
    class Fickle(Duel):
        def __call__(self, number):
            if self.calls == 9:  # the replay of number 6, which went well the first time
                self.spoil = {6}
            return super().__call__(number)

    reference, broken = Duel(), Fickle(spoil=[7])
    list(train.loop(reference, Numbers(), 4))
    with pytest.raises(train.Diverged, match="diverged at step 8: .* those of step 4;"):
        list(train.loop(broken, Numbers(), 20, log_every=4))
    assert broken.bits() == reference.bits()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_not_finite_is_a_divergence_although_all_gradients_are(bad):
    class Odd(Duel):
        def __call__(self, number):
            return super().__call__(number) | ({"score": bad} if number == 2 else {})

    reference, broken, history = Duel(), Odd(), {}
    list(train.loop(reference, Numbers(), 2))
    with pytest.raises(train.Diverged, match=f"at step 3: the term score became {bad}. All weights .* step 2;"):
        list(train.loop(broken, Numbers(), 9, history=history, log_every=1))
    assert broken.bits() == reference.bits() and history["step"] == [1, 2]


def test_a_closure_that_diverges_leaves_the_linear_model_at_its_last_whole_step():
    torch.manual_seed(0)
    x = torch.randn(50, 6)

    def build():
        torch.manual_seed(0)
        return linear.Step(linear.Model(2, (6,)), data.Split(x, torch.zeros(50)))

    reference, step = build(), build()
    list(train.loop(reference, Numbers(), 2))
    records = train.loop(step, Numbers(), 9)
    next(records), next(records)
    calls, exact = [0], linear.elbo

    def later(model, mean, cov):  # in the middle of the line search, when weights have moved
        calls[0] += 1
        return exact(model, mean, cov) * (math.nan if calls[0] == 3 else 1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linear, "elbo", later)
        with pytest.raises(train.Diverged, match="at step 3: the loss became nan.* step 2;"):
            next(records)
    found = step.model.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in reference.model.state_dict().items())


# what a step returns


@pytest.mark.parametrize(
    ("returned", "words"),
    [
        (None, "returned a NoneType"),
        (1.5, "returned a float"),
        ([1.0, 2.0], "returned a list"),
        (torch.ones(64, 3), "returned a Tensor"),
        ({"loss": torch.ones(64, 3)}, "returned a dict {'loss': 'Tensor'}"),
        ({"loss": torch.tensor(1.0)}, "returned a dict {'loss': 'Tensor'}"),
        ({"loss": 1.0, "kl": None}, "returned a dict {'loss': 'float', 'kl': 'NoneType'}"),
    ],
)
def test_what_is_no_dict_of_numbers_is_refused_in_one_sentence(returned, words):
    class Wrong(Counter):
        def __call__(self, batch):
            return returned

    with pytest.raises(TypeError) as caught:
        next(train.loop(Wrong(), Numbers(), 3))
    assert words in str(caught.value) and ".Wrong " in str(caught.value)
    assert "{term: number}, each with .item()" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


# update


@pytest.fixture
def small():
    """A linear net with Adam, after three good steps: (net, optimiser)."""
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 3)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(3):
        train.update(optimiser, net(torch.randn(5, 4)).square().sum())
    return net, optimiser


def bits(net, optimiser):
    slots = [v for state in optimiser.state.values() for v in state.values()]
    return [t.detach().clone().numpy().tobytes() for t in (*net.parameters(), *slots)]


def test_update_is_one_step_of_the_optimiser_on_this_loss_alone(small):
    net, optimiser = small
    copy = torch.nn.Linear(4, 3)
    copy.load_state_dict(net.state_dict())
    other = torch.optim.Adam(copy.parameters(), 0.01)
    other.load_state_dict(copy_of(optimiser.state_dict()))
    x = torch.randn(5, 4)
    for _ in range(2):  # the second shows gradients that were left over from the first
        train.update(optimiser, net(x).exp().sum())
        other.zero_grad()
        copy(x).exp().sum().backward()
        other.step()
    assert bits(net, optimiser) == bits(copy, other)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_update_refuses_what_is_not_finite_and_leaves_every_bit(small, bad):
    net, optimiser = small
    before = bits(net, optimiser)
    x = torch.randn(5, 4)
    x[2, 1] = bad
    with pytest.raises(train.Diverged, match="the gradient became (nan|inf) "):
        train.update(optimiser, net(x).square().sum())
    assert bits(net, optimiser) == before
    train.update(optimiser, net(torch.randn(5, 4)).square().sum())  # and it can go on
    after = bits(net, optimiser)
    assert after != before and all(np.isfinite(np.frombuffer(b, np.float32)).all() for b in after)


def test_one_bad_number_among_many_is_found(small):
    net, optimiser = small
    before = bits(net, optimiser)
    spoil = torch.zeros(3, 4)
    spoil[2, 3] = math.nan
    net.weight.register_hook(lambda grad: grad + spoil)
    with pytest.raises(train.Diverged, match=r"loss 2"):
        train.update(optimiser, (net.weight * 0 + net.bias.sum() * 0).sum() + 2)
    assert bits(net, optimiser) == before


def test_parameters_without_a_gradient_are_left_out(small):
    net, optimiser = small
    bias = net.bias.detach().clone()
    train.update(optimiser, net.weight.sum())
    assert net.bias.grad is None and torch.equal(net.bias, bias)


def test_diverged_is_an_arithmetic_error():
    assert issubclass(train.Diverged, ArithmeticError)


# the average of the weights


def test_the_average_follows_its_formula_and_copies_buffers():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    average = train.EMA(net, decay=0.8)
    expected = {name: p.detach().double().clone() for name, p in net.named_parameters()}
    for _ in range(5):
        with torch.no_grad():
            for p in net.parameters():
                p.add_(torch.randn_like(p))
        net(torch.randn(9, 2))  # moves the running means
        average.update(net)
        for name, p in net.named_parameters():
            expected[name] = 0.8 * expected[name] + 0.2 * p.detach().double()
    for name, p in average.model.named_parameters():
        assert torch.allclose(p.double(), expected[name], atol=1e-6) and not p.requires_grad
    buffers = dict(net.named_buffers())
    assert buffers["1.num_batches_tracked"] == 5
    for name, value in average.model.named_buffers():
        assert torch.equal(value, buffers[name]) and value is not buffers[name]


def test_the_average_is_another_network_in_evaluation_mode():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    average = train.EMA(net)
    assert average.decay == 0.999 and net.training and not average.model.training
    assert all(p.requires_grad for p in net.parameters())
    start = copy_of(average.model.state_dict())
    with torch.no_grad():
        net[0].weight.add_(1)
    assert torch.equal(average.model[0].weight, start["0.weight"]), "until it is told"
    average.update(net)
    moved = average.model[0].weight - start["0.weight"]
    assert torch.allclose(moved, torch.full_like(moved, 1e-3), atol=1e-6)
    assert not average.model[0].weight.requires_grad and net[0].weight.grad is None


def test_the_average_is_kept_with_a_checkpoint(tmp_path):
    step, other = Duel(), Duel(seed=5)
    list(train.loop(step, Numbers(), 4, checkpoint=tmp_path))
    list(train.loop(other, Numbers(), 4, checkpoint=tmp_path))
    assert other.bits() == step.bits()


# device and threads


def test_the_device_is_the_one_asked_for(monkeypatch):
    monkeypatch.setenv("GENCORE_DEVICE", "cpu")
    assert train.device() == torch.device("cpu")


@pytest.mark.parametrize(("cuda", "mps", "expected"), [(1, 1, "cuda"), (0, 1, "mps"), (0, 0, "cpu"), (1, 0, "cuda")])
@pytest.mark.parametrize("unset", [True, False])
def test_without_a_wish_the_best_that_is_there_is_taken(monkeypatch, cuda, mps, expected, unset):
    monkeypatch.delenv("GENCORE_DEVICE", raising=False) if unset else monkeypatch.setenv("GENCORE_DEVICE", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert train.device() == torch.device(expected)


@pytest.mark.parametrize("name", ["nonsense", "cuda:99", "cuda", "mps", "hpu", "gpu", "CPU", "cpu:x", "0.5", " ", "meta"])
def test_a_device_that_is_not_here_is_refused_in_one_sentence(monkeypatch, name):
    if name == "cuda" and torch.cuda.is_available() or name == "mps" and torch.backends.mps.is_available():
        pytest.skip(f"{name} is here")
    monkeypatch.setenv("GENCORE_DEVICE", name)
    with pytest.raises(ValueError, match=f"GENCORE_DEVICE is '{name}', which cannot be used here ") as caught:
        train.device()
    assert "\n" not in str(caught.value) and "it can be cpu, cuda" in str(caught.value)


@pytest.fixture
def threads():
    """Whatever a test sets, the tests after it have the threads that they began with."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_threads_are_those_asked_for(monkeypatch, threads):
    for number in (2, 1):
        monkeypatch.setenv("GENCORE_THREADS", str(number))
        assert train.threads() == number == torch.get_num_threads()


@pytest.mark.parametrize(("here", "expected"), [(1, 1), (3, 3), (8, 8), (64, 8)])
def test_threads_are_the_processors_of_this_process_and_at_most_eight(monkeypatch, threads, here, expected):
    monkeypatch.delenv("GENCORE_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(here)), raising=False)
    monkeypatch.setattr(torch, "set_num_threads", asked := [].append)
    assert train.threads() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert train.threads() == 1 and asked


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "1025", "1e2"])
def test_a_number_of_threads_that_is_none_is_refused(monkeypatch, threads, value):
    monkeypatch.setenv("GENCORE_THREADS", value)
    with pytest.raises(ValueError, match=f"GENCORE_THREADS is '{value}'; it should be a whole number from 1 to 1024"):
        train.threads()
