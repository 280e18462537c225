"""Kinds of tensors, arrays and functions that a forward changes where the module keeps them: all are put back."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toy_modules import Deconv, vectors

Z = vectors(5)


class Keeper(nn.Module):
    """A generator that does something to what it keeps."""

    def __init__(self, kept: Any = None, act: Callable[[Any], Any] = lambda _: None) -> None:
        super().__init__()
        self.inner, self.kept, self.act = Deconv(), [kept], act

    def forward(self, z: Tensor) -> Tensor:
        self.act(self.kept[0])
        image: Tensor = self.inner(z)
        return image


def run_all(module: nn.Module) -> None:
    generator = cp.wrap(module, Z)
    z = generator.sample(3)
    cp.Hybridizer(generator, "inner.main.2").hybridize(z, z.flip(0))
    cp.InfluenceMap(generator, "inner.main.2").attribute(n_pairs=3)


class Named:
    """An object that is a dict's key."""

    def __init__(self) -> None:
        self.uses = 0


class Own(nn.Parameter):
    """A parameter of the user's own kind."""


class OwnTensor(Tensor):
    """A tensor of the user's own kind."""


def _filled(numbers: list[int] = []) -> None:  # noqa: B006
    numbers.append(1)


def _use(names: dict[Named, int]) -> None:
    for name in names:
        name.uses += 1


def _set_data(value: Tensor) -> None:
    value.data = value.data.double() + 1


def looked_into(value: Tensor) -> list[Tensor]:
    return [value, value[:1]]


def _with_uses(value: Tensor) -> Tensor:
    value.__dict__["uses"] = []
    return value


# What is kept, what a forward does to it, and what is seen of it.
KEPT: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[Any], Any]]] = {
    "an array of the standard library": (lambda: array("d", [1.0]), lambda a: a.append(2), list),
    "a list that is an attribute of a tensor": (
        lambda: _with_uses(nn.Parameter(torch.ones(2))),
        lambda t: t.uses.append(1),
        lambda t: list(t.uses),
    ),
    "a tensor that is to need gradients": (lambda: torch.ones(2), Tensor.requires_grad_, lambda t: t.requires_grad),
    "a tensor with a gradient": (
        lambda: torch.ones(2),
        lambda t: setattr(t, "grad", torch.ones(2)),
        lambda t: t.grad is None,
    ),
    "a tensor of another type": (lambda: torch.ones(2), _set_data, lambda t: (t.dtype, t.tolist())),
    "a tensor that another one looks into": (
        lambda: looked_into(torch.ones(2)),
        lambda pair: _set_data(pair[0]),
        lambda pair: pair[0].data_ptr() == pair[1].data_ptr(),
    ),
    "a tensor with an attribute": (lambda: torch.ones(2), lambda t: setattr(t, "seen", 1), lambda t: list(vars(t))),
    "a sparse tensor": (lambda: torch.eye(3).to_sparse(), lambda t: t.mul_(2), lambda t: t.to_dense().tolist()),
    "a compressed tensor": (
        lambda: torch.eye(3).to_sparse_csr(),
        lambda t: t.values().mul_(2),
        lambda t: t.to_dense().tolist(),
    ),
    "a tensor of the user's kind": (
        lambda: torch.ones(2).as_subclass(OwnTensor),
        lambda t: Tensor.mul_(t, 2),
        lambda t: t.tolist(),
    ),
    "objects in an array": (
        lambda: np.array([[1], None], dtype=object),
        lambda a: a[0].append(2),
        lambda a: list(a[0]),
    ),
    "the keys of a dict": (lambda: {Named(): 1}, _use, lambda d: next(iter(d)).uses),
    "what draws a generator's bits": (lambda: np.random.PCG64(0), lambda b: b.random_raw(), lambda b: str(b.state)),
    "the defaults of a function": (lambda: _filled, lambda f: f(), lambda f: list(f.__defaults__[0])),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("what", KEPT)
def test_what_a_module_keeps_of_every_kind_is_put_back(what: str) -> None:
    make, act, look = KEPT[what]
    kept = make()
    module = Keeper(kept, act)
    before = look(kept)
    run_all(module)
    assert look(kept) == before
    with torch.no_grad():
        module(torch.zeros(2, 5))  # the control
    assert look(kept) != before


def test_a_changed_parameter_of_the_users_kind_is_refused() -> None:
    module = Keeper(own := Own(torch.ones(2)), lambda weight: weight.data.mul_(2))
    module.own = own
    with pytest.raises(cp.ProbeError, match="changes its parameter 'own'"):
        cp.wrap(module, Z)


def test_a_network_that_is_a_default_runs_in_eval_mode() -> None:
    torch.manual_seed(0)
    net = nn.BatchNorm1d(5).train()

    def call(z: Tensor, net: nn.Module = net) -> Tensor:
        out: Tensor = net(z)
        return out

    run_all(Keeper(torch.ones(3, 5), call))
    assert net.training
    assert int(net.num_batches_tracked) == 0
    call(torch.randn(3, 5))  # the control
    assert int(net.num_batches_tracked) == 1
