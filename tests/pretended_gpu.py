"""A pretended GPU: CPU tensors that say they are on cuda:0, and refuse what tensors there refuse.

They do not mix with CPU tensors of one dimension or more, other than as an index or a source of ``copy_``, and give no
NumPy array. Nothing is said about speed or rounding. Inside of ``backward`` nothing is checked.
"""

import contextlib
from functools import partial

import lightning.pytorch as pl
import torch
from lightning.pytorch.accelerators import CUDAAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda", 0)
_PROPERTIES = {"device": DEVICE, "is_cuda": True, "is_cpu": False}
_ANY_DEVICE = {"_has_compatible_shallow_copy_type", "copy_", "set_data"}
_INDEXING = {"__getitem__", "__setitem__", "index_put_"}


class Pretended(torch.Tensor):
    """A tensor on the pretended device."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})

    def __format__(self, spec):
        return format(self.item(), spec) if self.dim() == 0 else repr(self)

    def __deepcopy__(self, memo):
        return _moved(self.detach().cpu(), True).requires_grad_(self.requires_grad)


class _Devices(TorchFunctionMode):
    """Sends every call through the checks, those that make tensors too."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


@contextlib.contextmanager
def pretended_gpu(monkeypatch):
    """Pretends that this machine has one GPU; yields what makes a Trainer on it."""
    replaced = {"is_available": True, "is_bf16_supported": True, "device_count": 1, "current_device": 0}
    replaced |= {"mem_get_info": (2**40, 2**40), "manual_seed": None, "synchronize": None, "empty_cache": None}
    for name, value in replaced.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor, *_: tensor)
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # moved parameters have another class
    try:
        with _Devices():
            yield partial(_trainer, accelerator="auto")
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)


class _Accelerator(CUDAAccelerator):
    """One that is set up."""

    def setup_device(self, device):
        pass

    def setup(self, trainer):
        pass

    def teardown(self):
        pass


def _trainer(*, accelerator, **words):
    assert accelerator == "cuda"
    return pl.Trainer(strategy=SingleDeviceStrategy(device=DEVICE, accelerator=_Accelerator()), devices=1, **words)


def _call(func, args, kwargs):
    name, tensors = func.__name__, [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(tensor, Pretended) for tensor in tensors)
    with torch._C.DisableTorchFunctionSubclass():
        if name == "__get__" and there and (prop := func.__self__.__name__) in _PROPERTIES:
            return _PROPERTIES[prop]
        if name in ("to", "cpu", "cuda"):
            return _to(name, *args, **kwargs)
        if kwargs.get("device") is not None:
            there, kwargs = torch.device(kwargs["device"]).type == "cuda", {**kwargs, "device": "cpu"}
        if there:
            _check(name, args, tensors)
        if name == "backward":
            with torch._C.DisableTorchFunction():
                return func(*args, **kwargs)
        result = func(*args, **kwargs)
        return tree_map_only(torch.Tensor, partial(_moved, there=True), result) if there else result


def _check(name, args, tensors):
    if name in ("numpy", "__array__"):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu()")
    if name in _INDEXING:
        tensors = [args[0], *(given for given in args[2:] if isinstance(given, torch.Tensor))]
    if name not in _ANY_DEVICE and any(tensor.dim() and not isinstance(tensor, Pretended) for tensor in tensors):
        raise RuntimeError(f"{name}: expected all tensors on one device, found cuda:0 and cpu")


def _to(name, tensor, *args, **kwargs):
    """``Tensor.to``, ``cpu`` and ``cuda``: to a device, to a type, or to both of another tensor."""
    there, words = isinstance(tensor, Pretended) if name == "to" else name == "cuda", []
    for word in (*args, kwargs.pop("device", None)) if name == "to" else ():
        if isinstance(word, torch.Tensor):
            there = isinstance(word, Pretended)
        elif isinstance(word, (str, torch.device)):
            there, word = torch.device(word).type == "cuda", "cpu"
        words.append(word)
    result = tensor.to(*words[:-1], **kwargs) if words[:-1] or kwargs else tensor
    return result if there == isinstance(result, Pretended) else _moved(result.clone(), there)


def _moved(tensor, there):
    if there == isinstance(tensor, Pretended):
        return tensor
    return tensor.as_subclass(Pretended if there else torch.Tensor)
