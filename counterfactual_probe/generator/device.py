"""A module's device: unwrapping it, and moving it to the requested device."""

from __future__ import annotations

import copy
import os
import platform
from collections.abc import Mapping

import torch
from torch import nn

from ..base.errors import ProbeError, brief, first_line
from .state.wrappers import inside


def is_module(given: object) -> bool:
    """By its type: a proxy passes itself off as what it stands for, and may do more."""
    return issubclass(type(given), nn.Module)


def no_module(given: object) -> ProbeError:
    """The error for what is no module, with the way to one where it is known."""
    kind = type(given).__name__
    if kind == "ExportedProgram":
        cure = "give torch.export.unflatten(program), whose submodules are its layers"
    elif kind.endswith(("Pipeline", "Sampler", "Solver")):
        cure = (
            "give a torch.nn.Module whose forward calls it to make images from latents, with its networks as submodules"
        )
    elif isinstance(given, nn.Module):  # by its own word
        inner = given.__class__.__name__
        cure = f"it stands for a torch.nn.Module; give that {inner} itself, or a torch.nn.Module whose forward calls it"
    elif isinstance(given, type):
        cure = f"give what it makes, such as {given.__name__}(...), in place of the class"
    elif isinstance(given, (str, os.PathLike)):
        cure = "open names and folders with cp.load, and weights with the torch.nn.Module that they are of"
    elif isinstance(given, Mapping):
        cure = "load it into its torch.nn.Module, with module.load_state_dict(...), and give that"
    elif kind == "GeneratorAdapter":
        cure = "it is wrapped already, so use it as it is"
    else:
        cure = "give a torch.nn.Module"
    return ProbeError(f"the generator is {'an' if kind[0] in 'AEIOU' else 'a'} {kind}; {cure}")


def flat_graph(module: nn.Module) -> str:
    """Why a graph has no layers, if it is one that ``ExportedProgram.module()`` has made of a program: what to give."""
    if isinstance(module, torch.fx.GraphModule) and not any(
        node.op == "call_module" and not str(node.target).startswith("_guards") for node in module.graph.nodes
    ):
        return "layer, since its graph calls no submodules; give torch.export.unflatten(program), whose submodules are"
    return ""


def cure_of_forward(module: nn.Module, given: str) -> str:
    """What to do about a forward that raises, on latents of this form."""
    exported = any(kind.__name__ in ("GraphModule", "UnflattenedModule") for kind in type(module).__mro__)
    cure = f"run the module by itself to see why, on {given}"
    if not exported:
        return cure
    return (
        f"{cure} (a program takes the number of samples of its example alone, unless its dynamic_shapes say otherwise)"
    )


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside wrappers that hide its layers or ignore hooks."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            what = f"submodule {name!r} of the generator" if name else "the generator"
            raise ProbeError(
                f"{what} is TorchScript ({type(part).__name__}), whose layers run outside Python's reach; give the "
                "nn.Module that it was scripted from"
            )
    while (inner := inside(module)) is not None:
        module = inner
    return module


def on_device(module: nn.Module, device: torch.device | str | None) -> nn.Module:
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in module.parameters()):
        raise ProbeError("the generator has lazy layers without weights yet; run it once on your data first")
    current = home(module)[0]
    _require_values(module)
    try:
        target = current if device is None else torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        raise ProbeError(f"device {brief(device)} cannot be used here ({first_line(error)}); try 'cpu'") from error
    if target.type == "meta":
        raise ProbeError(
            "the generator is to run on 'meta', and 'meta' holds no values; load the weights onto a real device"
        )
    return module if current == target else copy.deepcopy(module).to(target)


def _require_values(module: nn.Module) -> None:
    """Raise a ProbeError if weights are on device 'meta', where offloading or skipped loading leaves them."""
    empty = [name for name, value in module.named_parameters() if value.device.type == "meta"]
    if not empty:
        return
    if any("_hf_hook" in part.__dict__ for part in module.modules()):
        raise ProbeError(
            f"weights of the generator are offloaded ({empty[0]!r} and {len(empty) - 1} more are on device 'meta' "
            "until they are used); load it whole, without device_map or cpu_offload, or call "
            "accelerate.hooks.remove_hook_from_submodules(module) first"
        )
    raise ProbeError(
        f"parameter {empty[0]!r} of the generator is on device 'meta', and 'meta' holds no values; load the weights "
        "onto a real device, such as 'cpu'"
    )


def home(module: nn.Module) -> tuple[torch.device, torch.dtype | None]:
    """Device of the first parameter or buffer, and the floating dtype if there is just one."""
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    dtypes = {value.dtype for value in module.parameters() if value.is_floating_point()}
    return device, dtypes.pop() if len(dtypes) == 1 else None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 natively; otherwise torch emulates it, slowly."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
