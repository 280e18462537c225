"""Wrappers of modules: those that add nothing are taken off, all others are a part of the generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import counterfactual_probe as cp
from support.toy_modules import Deconv, vectors

Z = vectors(5, torch.float32)
compiled: Any = partial(torch.compile, backend="eager")


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, partial(torch.compile, backend="eager")], ids=["parallel", "compiled"]
)
@pytest.mark.parametrize("kind", ["after", "before"])
def test_hooks_of_a_wrapper_are_a_part_of_it(wrap: Callable[[nn.Module], nn.Module], kind: str) -> None:
    """A wrapper without any is taken off, since it hides layers; one with hooks is more than what it wraps."""
    z, inner = Z(4, torch.Generator()), Deconv().eval()
    with torch.no_grad():
        plain = inner(z)
    module = wrap(inner).eval()
    if kind == "after":
        module.register_forward_hook(lambda _m, _i, output: output / 2)
    else:
        module.register_forward_pre_hook(lambda _m, given: (given[0] * 2,))
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        expected = module(z)
    assert not torch.allclose(expected, plain)
    generator = cp.wrap(module, Z)
    torch.testing.assert_close(generator(z), expected)
    layer = next(name for name in generator.layers if name.endswith("main.2"))
    found = cp.Hybridizer(generator, layer).hybridize(z, z.flip(0), units=[[0], [1], [2]])
    torch.testing.assert_close(found.base, expected)
    assert float((found.images - found.base).abs().max()) > 1e-4


class Unanswering(nn.Module):
    """Raises what is no AttributeError for an attribute that it does not have."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.inner(z) / 2
        return image

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise RuntimeError(f"no {name}") from None


def test_a_module_that_answers_no_question_is_probed() -> None:
    module = Unanswering(Deconv()).eval()
    generator = cp.wrap(module, Z)
    z = generator.sample(12)
    with torch.no_grad():
        torch.testing.assert_close(generator(z), module(z))
    layer = next(name for name in generator.layers if name.endswith("main.2"))
    found = cp.Hybridizer(generator, layer).hybridize(z, z.flip(0), units=[[0], [1]])
    assert found.provenance["executor"] == "prepared"


@compiled
def _same(x: Tensor) -> Tensor:
    return x


class Decorated(Deconv):
    @compiled
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z)


class Naming(Deconv):
    def forward(self, z: Tensor) -> Tensor:
        return super().forward(_same(z))


def setting(name: str, value: Callable[[nn.Module], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        module = Deconv()
        setattr(module, name, value(module))
        return module

    return make


def calling(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def call(z: Tensor) -> Tensor:
        return function(z)

    return call


COMPILED: dict[str, Callable[[], nn.Module]] = {
    "forward": setting("forward", lambda module: compiled(module.forward)),
    "attribute": setting("helper", lambda _: compiled(lambda x: x)),
    "list": setting("helpers", lambda _: [compiled(lambda x: x)]),
    "partial function": setting("helper", lambda _: partial(compiled(lambda x, y: x), y=1)),
    "closure": setting("helper", lambda _: calling(compiled(lambda x: x))),
    "class": Decorated,
    "file": Naming,
    "part in a list": setting("parts", lambda module: [compiled(nn.Identity())]),
}


@pytest.mark.parametrize("where", COMPILED)
def test_compiled_functions_of_a_module_run_as_written(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What traces the forward is not compiled along with it."""
    module, stances = COMPILED[where](), []
    set_stance = torch.compiler.set_stance
    monkeypatch.setattr(torch.compiler, "set_stance", lambda stance: stances.append(stance) or set_stance(stance))
    generator, plain = cp.wrap(module, Z), cp.wrap(Deconv(), Z)
    assert "force_eager" in stances
    plain.module.load_state_dict(module.state_dict())
    z = generator.sample(3)
    torch.testing.assert_close(generator(z), plain(z))
    del stances[:]
    plain(z)
    assert stances == []  # the control


class Halving(nn.DataParallel):  # type: ignore[type-arg]
    def forward(self, *given: Any) -> Tensor:
        image: Tensor = super().forward(*given) / 2
        return image


class HalvingCall(nn.DataParallel):  # type: ignore[type-arg]
    def __call__(self, *given: Any) -> Tensor:
        image: Tensor = super().__call__(*given) / 2
        return image


class HalvingInside(nn.DataParallel):  # type: ignore[type-arg]
    def _call_impl(self, *given: Any, **named: Any) -> Tensor:
        image: Tensor = super()._call_impl(*given, **named) / 2
        return image


class HalvingProperty(nn.DataParallel):  # type: ignore[type-arg]
    @property
    def forward(self) -> Any:
        return lambda *given: self.module(*given) / 2


class HalvingAnswer(nn.DataParallel):  # type: ignore[type-arg]
    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        return (lambda *given: found(*given) / 2) if name == "forward" else found


class Delegating(nn.Module):
    """Hands on every attribute that it does not have."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.inner(z) / 2
        return image


class Within(nn.Module):
    """Has the wrapper as a part."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.part(z)
        return image


def halved(wrapper: nn.Module, inner: nn.Module, how: Callable[[Any], Any] = lambda forward: forward) -> nn.Module:
    wrapper.forward = how(lambda z: inner(z) / 2)  # type: ignore[method-assign]
    return wrapper


def marked(inner: nn.Module) -> nn.Module:
    """Its new forward has all marks of the compiled one, which `functools.wraps` copies."""
    wrapper = compiled(inner)
    return halved(wrapper, inner, wraps(wrapper.forward))


def bound(wrapper: nn.Module, inner: nn.Module) -> nn.Module:
    wrapper.forward = MethodType(compiled(lambda _, z: inner(z) / 2), wrapper)  # type: ignore[method-assign]
    return wrapper


def called_otherwise(wrapper: nn.Module) -> nn.Module:
    call = wrapper._call_impl
    wrapper._call_impl = lambda *given, **named: call(*given, **named) / 2  # type: ignore[method-assign]
    return wrapper


HALVED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "forward": Halving,
    "call": HalvingCall,
    "inside the call": HalvingInside,
    "property": HalvingProperty,
    "answer": HalvingAnswer,
    "compiled, set to a method": lambda inner: bound(compiled(inner), inner),
    "parallel, set": lambda inner: halved(nn.DataParallel(inner), inner),
    "parallel, call set": lambda inner: called_otherwise(nn.DataParallel(inner)),
    "compiled, set": lambda inner: halved(compiled(inner), inner),
    "compiled, set to compiled": lambda inner: halved(compiled(inner), inner, compiled),
    "compiled, set with its marks": marked,
    "compiled": lambda inner: compiled(Halving(inner)),
    "delegating": Delegating,
    "delegating to a compiled one": lambda inner: Delegating(compiled(inner)),
    "compiled delegating": lambda inner: compiled(Delegating(compiled(inner))),
    "part": lambda inner: Within(halved(compiled(inner), inner, compiled)),
}


@pytest.mark.parametrize("how", HALVED)
def test_a_wrapper_with_a_forward_of_its_own_is_kept(how: str) -> None:
    inner = Deconv().eval()
    module, plain = HALVED[how](inner).eval(), cp.wrap(nn.DataParallel(inner), Z)
    generator = cp.wrap(module, Z)
    z = generator.sample(4)
    torch.testing.assert_close(generator(z), plain(z) / 2)
    layer = next(name for name in generator.layers if name.endswith("main.2"))
    found = cp.Hybridizer(generator, layer).hybridize(z, z.flip(0), units=[[0], [1], [2]])
    expected = cp.Hybridizer(plain, "main.2").hybridize(z, z.flip(0), units=[[0], [1], [2]])
    torch.testing.assert_close(found.images, expected.images / 2)


def test_the_output_of_a_wrapper_that_is_a_part_is_its_own() -> None:
    """Not that of what it wraps."""
    inner = nn.Conv2d(3, 3, 1)

    class After(Deconv):
        def __init__(self) -> None:
            super().__init__()
            self.after = halved(compiled(inner), inner, compiled)

        def forward(self, z: Tensor) -> Tensor:
            image: Tensor = self.after(super().forward(z))
            return image

    generator = cp.wrap(After(), Z)
    z = generator.sample(2)
    layers: dict[str, Tensor] = {}
    with generator.session():
        generator.forward(z, {"after": lambda view: layers.update(after=view.clone())}, noise=range(2))
    torch.testing.assert_close(layers["after"], generator(z))


class Parallel(nn.DataParallel):  # type: ignore[type-arg]
    """As people write it, to reach the attributes of what it wraps."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.module, name)


PLAIN: dict[str, Callable[[nn.Module], nn.Module]] = {
    "parallel": nn.DataParallel,
    "compiled": compiled,
    "compiled parallel": lambda inner: compiled(nn.DataParallel(inner)),
    "delegating parallel": Parallel,
    "compiled layers": lambda inner: compiled(nn.Sequential(*[nn.Unflatten(1, (5, 1, 1)), *inner.main])),  # type: ignore[misc]
}


@pytest.mark.parametrize("how", PLAIN)
def test_a_wrapper_that_adds_nothing_is_taken_off(how: str) -> None:
    """The control."""
    generator = cp.wrap(PLAIN[how](Deconv()), Z)
    assert type(generator.module) is (nn.Sequential if how == "compiled layers" else Deconv)


class Proxy:
    """Passes itself off as what it stands for, as those of wrapt do, and does more."""

    def __init__(self, wrapped: Any) -> None:
        self.__wrapped__ = wrapped

    @property
    def __class__(self) -> Any:
        return type(self.__wrapped__)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "__dict__")["__wrapped__"], name)

    def __call__(self, *given: Any) -> Any:
        return self.__wrapped__(*given) / 2


def test_a_proxy_is_no_module() -> None:
    proxy: Any = Proxy(Deconv())
    assert isinstance(proxy, nn.Module)
    cure = r"is a Proxy; .*stands for a torch\.nn\.Module; give that Deconv itself"
    for make in (lambda: cp.wrap(proxy, Z), lambda: cp.GeneratorAdapter(proxy, Z)):
        with pytest.raises(cp.ProbeError, match=cure):
            make()
    for other in (lambda: cp.Classifier(proxy, lambda x: x), lambda: cp.SpectralDependency(proxy)):
        with pytest.raises(cp.ProbeError, match=r"is a Proxy; give a"):
            other()


def test_a_network_behind_a_proxy_runs_in_eval_mode_and_is_put_back() -> None:
    class Behind(Deconv):
        def __init__(self) -> None:
            super().__init__()
            self.norm = [Proxy(nn.BatchNorm1d(5))]

        def forward(self, z: Tensor) -> Tensor:
            return super().forward(self.norm[0](z))

    module = Behind().train()
    net = module.norm[0].__wrapped__
    generator = cp.wrap(module, Z)
    z = generator.sample(3)
    with torch.no_grad():
        expected = module.eval()(z), net.eval(), module(z)
    net.train()
    torch.testing.assert_close(generator(z), expected[2])
    assert net.training
    assert int(net.num_batches_tracked) == 1
