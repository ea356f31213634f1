"""A pretend accelerator, the device "elsewhere": for tests that nothing is pinned to the CPU.

Its tensors hold their numbers in CPU tensors, which compute for it, and say that they lie elsewhere.
Like CUDA it refuses operations on tensors of two devices (but takes a CPU tensor of one number
where the operation goes element by element, and CPU tensors as indices), generators of the other
device, and `.numpy()`. Like MPS it can do without float64 and without adaptive pooling of odd
sides. What it cannot show: speed, memory, reduced precision, kernels that round otherwise or, but
for those two, are missing.
"""

import contextlib
import weakref

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "elsewhere"
DEVICE = f"{NAME}:0"
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index"}
BETWEEN = {"aten::copy_", "aten::_to_copy"}  # their purpose is to move numbers
BOTH = "Expected all tensors to be on the same device, but found at least two devices"

_generators = weakref.WeakValueDictionary()  # those of this device, by the address of their state
_plain_generator = torch.Generator
unseeded = []  # operations that drew from the device's own generator, whose state nobody keeps
_features = {"like MPS": False, "own numbers": True}


class Generator(_plain_generator):
    """A torch.Generator that knows its device; of one seed both devices draw other numbers."""

    def __new__(cls, device="cpu"):
        device = torch.device(device)
        made = super().__new__(cls, "cpu" if device.type == NAME else device)
        if device.type == NAME:
            _generators[made._cdata] = made
        return made

    @property
    def device(self):
        return torch.device(DEVICE) if self._cdata in _generators else super().device

    def manual_seed(self, seed):
        other = self._cdata in _generators and _features["own numbers"]
        return super().manual_seed(seed ^ 0x5EED << 20 if other else seed)

    def get_state(self):
        """As long as it is on no other device: a state belongs to its kind of device."""
        state = super().get_state()
        return torch.cat([state, state[:16]]) if self._cdata in _generators else state

    def set_state(self, state):
        if self._cdata not in _generators:
            return super().set_state(state)
        if len(state) != len(super().get_state()) + 16:
            raise RuntimeError(f"Expected the state of a generator elsewhere, not {len(state)} bytes")
        return super().set_state(state[:-16])


class Tensor(torch.Tensor):
    """A tensor elsewhere; `.inner` holds its numbers."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner):
        if inner.dtype == torch.float64 and _features["like MPS"]:
            raise TypeError("Cannot convert a tensor to float64: this device doesn't support it")
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=torch.device(DEVICE),
        )  # fmt: skip
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return _compute(op, args, kwargs or {})

    @property
    def data(self):
        return self.detach()

    @data.setter
    def data(self, other):  # nn.Module.to assigns to it
        torch.Tensor.data.__set__(self, other)
        self.inner = other.inner

    def __deepcopy__(self, memo):
        if not self.is_leaf:
            raise RuntimeError("Only leaves of the graph can be copied deeply")
        made = Tensor(self.inner.detach().clone()).requires_grad_(self.requires_grad)
        made.__dict__ |= {k: v for k, v in self.__dict__.items() if k != "inner"}  # is a parameter
        made.grad = None if self.grad is None else self.grad.detach().clone()
        return memo.setdefault(id(self), made)

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *, force=False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu()")

    def __array__(self, dtype=None, copy=None):
        return self.numpy()

    def __repr__(self, *, tensor_contents=None):
        return f"tensor({self.inner}, device='{DEVICE}')"


def _compute(op, args, kwargs):
    """An operation on tensors elsewhere, or one that makes them, done on the CPU."""
    _refuse_mixed(op, args, kwargs)
    if _features["like MPS"] and op._schema.name == "aten::_adaptive_avg_pool2d":
        if any(into % out for into, out in zip(args[0].shape[2:], args[1], strict=True)):
            raise RuntimeError("Adaptive pool: input sizes must be divisible by output sizes")
    given = [x for x in _tensors((*args, *kwargs.values())) if isinstance(x, Tensor)]
    owners = {id(x.inner): x for x in given}
    target = kwargs.get("device")
    away = target is not None and torch.device(target).type != NAME
    options = dict(kwargs) if target is None else {**kwargs, "device": "cpu"}
    if "generator" in {a.name for a in op._schema.arguments}:
        options["generator"] = _generator(op, args, kwargs)
        if len(args) == len(op._schema.arguments):
            args = args[:-1]
    options = {key: _map(_inner, value) for key, value in options.items()}
    result = op(*_map(_inner, args), **options)
    for x in given:
        if x.shape != x.inner.shape:  # an empty `out`
            found, x.inner = Tensor(x.inner), torch.empty(x.shape, dtype=x.dtype)
            x.data = found
    if op._schema.name == "aten::copy_" and not isinstance(args[0], Tensor):
        return args[0]

    def owned(x):
        return owners.get(id(x)) if id(x) in owners else Tensor(x)

    return result if away else _map(owned, result)


def _inner(x):
    return x.inner if isinstance(x, Tensor) else x


def _map(function, value):
    """A value, or lists and tuples of values, with the function of each tensor in the place of it."""
    if isinstance(value, torch.Tensor):
        return function(value)
    return type(value)(_map(function, x) for x in value) if isinstance(value, (list, tuple)) else value


def _tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)


def _generator(op, args, kwargs):
    found = [x for x in (*args, *kwargs.values()) if isinstance(x, _plain_generator)]
    if not found:
        unseeded.append(str(op))
        return _default
    if found[0]._cdata not in _generators:
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({op})")
    return found[0]


def _refuse_mixed(op, args, kwargs):
    """What CUDA says to an operation on tensors of two devices."""
    name, elementwise = op._schema.name, torch.Tag.pointwise in op.tags
    if name in BETWEEN:
        return
    values = dict(zip([a.name for a in op._schema.arguments], args, strict=False)) | kwargs
    kinds = {isinstance(x, Tensor) for x in _tensors(tuple(values.values()))}
    if kinds != {True, False}:
        return
    for argument in op._schema.arguments:
        written = argument.alias_info is not None and argument.alias_info.is_write
        for x in _tensors(values.get(argument.name)):
            if isinstance(x, Tensor):
                continue
            number = x.ndim == 0 and not written
            index = name in INDEXING and argument.name in ("indices", "values" * number)
            both_index = index and isinstance(values["self"], Tensor)
            if not (both_index or (number and elementwise)):
                raise RuntimeError(f"{BOTH}, {DEVICE} and {x.device}! ({op}, argument {argument.name})")


class Generators(TorchFunctionMode):
    """Refuses a generator of this device to whatever draws on the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        given = kwargs.get("generator")
        if isinstance(given, Generator) and given._cdata in _generators:
            if isinstance(result, torch.Tensor) and not isinstance(result, Tensor):
                raise RuntimeError(f"Expected a 'cpu' device type for generator but found '{NAME}'")
        return result


def _new(op, *args, **kwargs):
    return _compute(op, args, kwargs)


def _copy_from(source, target, non_blocking=False):
    """What `torch.tensor(..., device=...)` fills its tensor with; it passes by __torch_dispatch__."""
    target.inner.copy_(source)
    return target


def register():
    """Make the device known to torch; where nobody asks for it, it does nothing.

    Once in a process, before the first backward pass, which counts the devices that there are.
    """
    global _library, _copies, _default
    _setup_privateuseone_for_python_backend(NAME)
    _library = torch.library.Library("_", "IMPL", "PrivateUse1")
    _library.fallback(_new)
    _copies = torch.library.Library("aten", "IMPL")
    _copies.impl("_copy_from", _copy_from, "PrivateUse1")
    _default = Generator(NAME).manual_seed(0)


@contextlib.contextmanager
def device(like_mps=False, own_numbers=True):
    """While it lasts, `torch.Generator` can be made for the device, and is refused where it is not.

    like_mps: whether it lacks what MPS lacks and CUDA has. own_numbers: whether its generators draw
    other numbers than the CPU's do of the same seed, as real ones do.
    """
    before = dict(_features)
    _features.update({"like MPS": like_mps, "own numbers": own_numbers})
    torch.Generator = Generator
    try:
        with Generators():
            yield DEVICE
    finally:
        torch.Generator = _plain_generator
        _features.update(before)


register()
