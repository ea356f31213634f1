"""checkpoint: what goes into a file comes back bit by bit, whatever it was."""

import copy
import json
import math

import pytest
import torch

from gencore import checkpoint, store


class Part:
    """A part with state that is neither a module nor an optimiser."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def there_and_back(parts, into, folder):
    """Through a file, as a run that was killed and is started again."""
    history = {}
    checkpoint.save(folder, 7, parts, {"step": [5]})
    assert checkpoint.resume(folder, into, history) == 7 and history == {"step": [5]}


NESTED = {
    3: torch.arange(4.0), "3": "a text beside the number three", "none": None, "yes": True, "no": False,
    "list": [1, 2.5, [torch.ones(2, dtype=torch.int64), None], {}, []], "inner": {0: {"deep": torch.tensor(1.5)}},
    "third": 1 / 3, "big": 2**60, "byte": torch.tensor([255], dtype=torch.uint8),
    "half": torch.ones(2, dtype=torch.bfloat16), "nothing": torch.zeros(0, 3), "truth": torch.tensor([True, False]),
}  # fmt: skip


def same(a, b):
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_nested_states_come_back_with_their_keys_in_order_and_their_types(tmp_path):
    part, other = Part(NESTED), Part(None)
    there_and_back({"part": part}, {"part": other}, tmp_path)
    assert same(NESTED, other.state)


def test_a_part_may_be_nothing_but_plain_numbers(tmp_path):
    other = Part(None)
    there_and_back({"p": Part({"count": 3, "mean": 0.1})}, {"p": other}, tmp_path)
    assert other.state == {"count": 3, "mean": 0.1}
    there_and_back({"p": Part({})}, {"p": other}, tmp_path)
    assert other.state == {}


@pytest.mark.parametrize("thing", [{1, 2}, object(), 1j, b"bytes", lambda: 0])
def test_what_cannot_be_kept_is_one_sentence(thing, tmp_path):
    words = rf"The state of part/a/1 is a {type(thing).__name__}, which no checkpoint can keep\."
    with pytest.raises(TypeError, match=words) as caught:
        checkpoint.save(tmp_path, 1, {"part": Part({"a": [0, thing]})}, {})
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_captured_state_is_a_copy():
    """In both directions: later steps do not change it, and what is put back may be changed."""
    torch.manual_seed(0)
    net, noise, part = torch.nn.BatchNorm1d(3), torch.Generator().manual_seed(1), Part({"s": {"a": 1.0}})
    optimiser = torch.optim.Adam(net.parameters(), 0.1)

    def train():
        optimiser.zero_grad()
        net(torch.randn(9, 3, generator=noise)).square().sum().backward()
        optimiser.step()
        part.state["s"]["a"] += 1

    train()
    parts = {"net": net, "optimiser": optimiser, "noise": noise, "part": part}
    tensors, outline = checkpoint.capture(parts)
    kept, text = {key: value.clone() for key, value in tensors.items()}, json.dumps(outline)
    for _ in range(2):
        train()
        assert all(torch.equal(tensors[key], value) for key, value in kept.items())
        assert json.dumps(outline) == text
        assert not torch.equal(net.running_mean, kept["net/running_mean"])
        checkpoint.restore(parts, tensors, outline)
        assert torch.equal(net.running_mean, kept["net/running_mean"])
        assert torch.equal(net.weight, kept["net/weight"])
        assert torch.equal(noise.get_state(), kept["noise"])
        assert part.state == {"s": {"a": 2.0}}
        again = checkpoint.capture(parts)[0]
        assert all(torch.equal(again[key], value) for key, value in kept.items())
    assert not any(t.requires_grad for t in tensors.values())


def trained(make, steps, net=None, optimiser=None):
    torch.manual_seed(0)
    net = net or torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
    optimiser = optimiser or make(net.parameters())
    x = torch.randn(20, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def closure():
        optimiser.zero_grad()
        loss = (net(x) - x[:, :2].sin()).square().mean()
        loss.backward()
        return loss

    for _ in range(steps):
        optimiser.step(closure)
    return net, optimiser


OPTIMISERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "fused adam": lambda p: torch.optim.Adam(p, 0.01, fused=True),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, centered=True),
    "L-BFGS": lambda p: torch.optim.LBFGS(p, 0.5, max_iter=3, history_size=4, line_search_fn="strong_wolfe"),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_goes_on_to_the_last_bit(name, tmp_path):
    make = OPTIMISERS[name]
    straight, _ = trained(make, 8)
    net, optimiser = trained(make, 3)
    other, fresh = trained(make, 0)
    there_and_back({"net": net, "o": optimiser}, {"net": other, "o": fresh}, tmp_path)
    trained(make, 5, other, fresh)
    for p, q in zip(straight.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_an_optimiser_that_has_done_nothing_yet_comes_back(tmp_path):
    net, optimiser = trained(OPTIMISERS["adam"], 0)
    other, fresh = trained(OPTIMISERS["adam"], 0)
    there_and_back({"o": optimiser}, {"o": fresh}, tmp_path)
    assert not fresh.state and fresh.param_groups[0]["lr"] == 0.01


def test_averages_lie_in_memory_as_their_weights_do(tmp_path):
    """The fused Adam reads both as flat memory: laid out otherwise, it would mix the weights up."""

    def build():
        torch.manual_seed(0)
        net = torch.nn.Conv2d(3, 6, 4).to(memory_format=torch.channels_last)
        return net, torch.optim.Adam(net.parameters(), 0.01, fused=True)

    def train(net, optimiser, steps):
        x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        for _ in range(steps):
            optimiser.zero_grad()
            net(x).square().sum().backward()
            optimiser.step()

    straight, its = build()
    train(straight, its, 6)
    net, optimiser = build()
    train(net, optimiser, 3)
    other, fresh = build()
    there_and_back({"net": net, "o": optimiser}, {"net": other, "o": fresh}, tmp_path)
    assert other.weight.is_contiguous(memory_format=torch.channels_last)
    for slot in ("exp_avg", "exp_avg_sq"):
        assert fresh.state[other.weight][slot].stride() == other.weight.stride()
        assert torch.equal(fresh.state[other.weight][slot], optimiser.state[net.weight][slot])
    train(other, fresh, 3)
    assert torch.equal(other.weight, straight.weight)


def test_a_generator_draws_what_it_would_have_drawn(tmp_path):
    noise, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)
    torch.randn(5, generator=noise)
    there_and_back({"noise": noise}, {"noise": other}, tmp_path)
    assert torch.equal(torch.randn(5, generator=other), torch.randn(5, generator=noise))


def test_modules_share_no_memory_with_what_was_captured():
    net = torch.nn.Linear(2, 2)
    tensors, outline = checkpoint.capture({"net": net})
    checkpoint.restore({"net": net}, tensors, outline)
    with torch.no_grad():
        net.weight.add_(1)
    assert not torch.equal(tensors["net/weight"], net.weight)


# files


def test_saving_deletes_older_checkpoints_and_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for step in (1, 5, 12):
        checkpoint.save(tmp_path, step, {"p": Part({"n": step})}, {})
    names = sorted(file.name for file in tmp_path.iterdir() if file.name[0] != ".")
    assert names == ["notes.txt", "step-00000012.json", "step-00000012.safetensors"]
    checkpoint.save(tmp_path, 12, {"p": Part({"n": 13})}, {})  # again at one step: the newer counts
    part = Part(None)
    assert checkpoint.resume(tmp_path, {"p": part}, {}) == 12 and part.state == {"n": 13}


def test_resume_takes_the_newest_whole_checkpoint(tmp_path, capsys):
    model = torch.nn.Linear(2, 1)
    for index in (1, 2, 3):
        with torch.no_grad():
            model.weight.fill_(index)
        checkpoint.save(tmp_path / str(index), index, {"model": model}, {"step": [index]})
        for file in (tmp_path / str(index)).glob("step-*"):
            file.replace(tmp_path / file.name)
    newest = tmp_path / "step-00000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    history = {}
    assert checkpoint.resume(tmp_path, {"model": model}, history) == 2
    assert model.weight.tolist() == [[2, 2]] and history == {"step": [2]}
    assert "Passing over a checkpoint" in capsys.readouterr().out
    (tmp_path / "step-00000002.safetensors").unlink()
    assert checkpoint.resume(tmp_path, {"model": model}, history) == 1
    (tmp_path / "step-00000001.json").write_bytes(b"{")
    assert checkpoint.resume(tmp_path, {"model": model}, history) == 0
    assert checkpoint.resume(tmp_path / "nowhere", {"model": model}, history) == 0


@pytest.mark.parametrize("other", [{}, {"q": {"n": 1}}, {"p": {"n": 1}, "q": {"n": 2}}])
def test_a_checkpoint_of_other_parts_is_passed_over_and_changes_nothing(tmp_path, other, capsys):
    checkpoint.save(tmp_path, 3, {name: Part(state) for name, state in other.items()}, {"step": [3]})
    part, history = Part("as it was"), {}
    assert checkpoint.resume(tmp_path, {"p": part}, history) == 0
    assert part.state == "as it was" and history == {}
    assert "holds other parts than this training has" in capsys.readouterr().out


def test_a_checkpoint_of_an_older_gencore_is_passed_over(tmp_path, capsys):
    store.save(tmp_path / "step-00000009", {"model/w": torch.ones(2)}, {"step": 9, "history": {}})
    assert checkpoint.resume(tmp_path, {"p": Part(1)}, {}) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_the_state_of_a_part_is_not_changed_by_saving(tmp_path):
    state = copy.deepcopy(NESTED)
    checkpoint.save(tmp_path, 1, {"p": Part(state)}, {})
    assert same(state, NESTED)


def test_removing_takes_the_folder_with_what_a_kill_left_in_it(tmp_path):
    folder = tmp_path / "run"
    checkpoint.save(folder, 1, {"p": Part({"n": 1})}, {})
    (folder / ".step-00000001.safetensors-x7d_k2").write_bytes(b"half")
    checkpoint.remove(folder)
    assert not folder.exists()
    checkpoint.remove(folder)


def test_keys_that_would_meet_in_one_path_stay_apart(tmp_path):
    state = {"a/b": torch.tensor(1), "a": {"b": torch.tensor(2)}, 1: torch.tensor(3), "1": torch.tensor(4)}
    one, two = Part(state), Part({"b": torch.tensor(5)})
    first, second = Part(None), Part(None)
    there_and_back({"p/a": two, "p": one}, {"p/a": second, "p": first}, tmp_path)
    assert same(first.state, state) and same(second.state, {"b": torch.tensor(5)})


def test_numbers_that_json_has_no_word_for_come_back(tmp_path):
    other = Part(None)
    there_and_back({"p": Part({"best": math.inf, "low": [-math.inf], "none": math.nan})}, {"p": other}, tmp_path)
    assert other.state["best"] == math.inf and other.state["low"] == [-math.inf]
    assert math.isnan(other.state["none"])
