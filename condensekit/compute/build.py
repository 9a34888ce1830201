"""Builder of a library, a program of its own: ``python build.py FOLDER``, which has ``asked.pt``.

It needs torch alone. It writes the shared libraries and ``manifest.json`` into the folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch._inductor
import torch.nn.functional as F
from torch import Tensor
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

aten = torch.ops.aten
FEW = 4  # channels, up to which a CPU's convolution to them is slow


def parts(kind: str, graph: GraphModule, inputs: list[Tensor]) -> dict[str, tuple[GraphModule, Sequence[Tensor]]]:
    """The graphs to compile by name, each with its example inputs; see ``library.libraries``."""
    from torch._inductor.decomposition import select_decomp_table

    table = select_decomp_table()
    table = {
        **table,
        aten.native_group_norm.default: _group_norm,
        aten.native_group_norm_backward.default: _group_norm_backward,
        aten.convolution_backward.default: _to_few_channels,
    }

    def plain(function: Callable[..., tuple[Tensor, ...]]) -> GraphModule:
        return make_fx(function, decomposition_table=table, tracing_mode="fake")(*inputs)

    if kind == "plain":
        return {"run": (plain(lambda *given: (graph(*given),)), inputs)}
    if kind == "gradient":
        wanted = [i for i, t in enumerate(inputs) if t.requires_grad]

        def gradient(*given: Tensor) -> tuple[Tensor, ...]:
            leaves = [t.detach().requires_grad_(i in wanted) for i, t in enumerate(given)]
            value = graph(*leaves)
            slopes = torch.autograd.grad(value, [leaves[i] for i in wanted], materialize_grads=True)
            return value.detach(), *slopes

        return {"run": (plain(gradient), inputs)}
    return _pullback(graph, inputs, table)


def _pullback(graph: GraphModule, inputs: list[Tensor], table: Any) -> dict[str, tuple[GraphModule, Sequence[Tensor]]]:
    """The forward graph, which also returns what the backward graph needs, and the backward graph."""
    from functorch.compile import (  # type: ignore[import-untyped]
        aot_function,
        make_boxed_func,
        min_cut_rematerialization_partition,
    )

    found: dict[str, tuple[GraphModule, Sequence[Tensor]]] = {}

    def keep(name: str) -> Callable[[GraphModule, Sequence[Tensor]], Any]:
        def compiler(part: GraphModule, given: Sequence[Tensor]) -> Any:
            found[name] = part, [torch.empty_strided(t.shape, t.stride(), dtype=t.dtype) for t in given]
            return make_boxed_func(part)

        return compiler

    both = aot_function(
        graph, keep("forward"), keep("backward"), min_cut_rematerialization_partition, decompositions=table
    )
    both(*inputs).sum().backward()
    backward = found["backward"][0]
    (returned,) = (node for node in backward.graph.nodes if node.op == "output")
    returned.args = (returned.args[0][:1],)  # the gradient of the images; those of the weights are None
    backward.recompile()
    return found


def _group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, n: int, c: int, hw: int, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Group normalisation with two plain means instead of a running update, whose steps wait for each other."""
    parts = x.float().reshape(n, groups, c // groups, *x.shape[2:])
    axes = list(range(2, parts.ndim))
    mean = parts.mean(axes, keepdim=True)
    moved = parts - mean
    scale = torch.rsqrt((moved * moved).mean(axes, keepdim=True) + eps)
    per_channel = [1, groups, c // groups, *[1] * (x.ndim - 2)]
    moved = moved * (scale if weight is None else scale * weight.view(per_channel))
    moved = moved if bias is None else moved + bias.view(per_channel)
    return moved.reshape(x.shape).to(x.dtype), mean.view(n, groups), scale.view(n, groups)


def _group_norm_backward(
    slope: Tensor,
    x: Tensor,
    mean: Tensor,
    scale: Tensor,
    weight: Tensor | None,
    n: int,
    c: int,
    hw: int,
    groups: int,
    wanted: list[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of a group normalisation, in two passes over the images and without another layout of them."""
    axes, ones = list(range(2, x.ndim)), [1] * (x.ndim - 2)
    slope_, x_ = slope.float(), x.float()
    products, sums = (slope_ * x_).sum(axes).view(n, groups, -1), slope_.sum(axes).view(n, groups, -1)
    mean_, scale_ = mean.view(n, groups, 1), scale.view(n, groups, 1)
    gamma = 1.0 if weight is None else weight.view(1, groups, -1)
    product, total = (products * gamma).sum(2, keepdim=True), (sums * gamma).sum(2, keepdim=True)
    share = groups / (hw * c)
    of_x = (total * mean_ - product) * scale_ * scale_ * scale_ * share
    shift = -of_x * mean_ - total * scale_ * share

    def spread(value: Tensor) -> Tensor:
        return value.expand(n, groups, c // groups).reshape(n, c, *ones)

    moved = slope_ * spread(scale_ * gamma) + x_ * spread(of_x) + spread(shift)
    return (
        moved.to(x.dtype) if wanted[0] else None,
        ((products - sums * mean_) * scale_).sum(0).reshape(c) if wanted[1] else None,
        sums.sum(0).reshape(c) if wanted[2] else None,
    )


def _to_few_channels(
    slope: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    wanted: list[bool],
) -> Any:
    """The gradient of images of few channels: a matrix product for all taps of the kernel, and a sum of its shifts."""
    few = wanted[0] and x.shape[1] <= FEW and x.ndim == 4 and slope.dtype == torch.float32
    if not few or transposed or groups > 1 or any(s != 1 for s in (*stride, *dilation)):
        return NotImplemented
    channels, rows, columns = weight.shape[1:]
    taps = weight.permute(1, 2, 3, 0).flatten(0, 2) @ slope.permute(0, 2, 3, 1).flatten(0, 2).T
    grid = taps.view(channels, rows, columns, len(slope), *slope.shape[2:])
    grid = F.pad(grid, (columns - 1, columns - 1, rows - 1, rows - 1))
    height, width, total = x.shape[2], x.shape[3], None
    for i in range(rows):
        for j in range(columns):
            top, left = rows - 1 + padding[0] - i, columns - 1 + padding[1] - j
            part = grid[:, i, j, :, top : top + height, left : left + width]
            total = part if total is None else total + part
    assert total is not None
    rest = [None, None, None]
    if wanted[1] or wanted[2]:
        how = (bias_sizes, stride, padding, dilation, transposed, output_padding, groups)
        rest = aten.convolution_backward(slope, x, weight, *how, [False, *wanted[1:]])
    return total.transpose(0, 1), rest[1], rest[2]


def compile_part(folder: Path, name: str, graph: GraphModule, inputs: Sequence[Tensor]) -> int:
    """Compile one graph to ``name.so`` in the folder; returns its number of outputs."""
    from torch._inductor import config

    options: dict[str, Any] = {
        "cpp.threads": 1,
        "aot_inductor.output_path": str(folder / f"{name}.so"),
        "realize_reads_threshold": 64,  # to compute a value again is cheaper than to store it
        "realize_opcount_threshold": 512,
        "realize_acc_reads_threshold": 64,
    }
    if hasattr(config.aot_inductor, "compile_wrapper_opt_level"):  # the calls between kernels, which take no time
        options["aot_inductor.compile_wrapper_opt_level"] = "O0"
    with torch.no_grad():
        torch._inductor.aot_compile(graph, tuple(inputs), options=options)
    (returned,) = (node for node in graph.graph.nodes if node.op == "output")
    return len(returned.args[0])


def main() -> None:
    """Build all parts, and write the manifest last."""
    folder = Path(sys.argv[1])
    asked = torch.load(folder / "asked.pt", weights_only=False)  # written by the process that started this one
    torch.set_num_threads(1)
    outputs = {
        name: compile_part(folder, name, graph, inputs)
        for name, (graph, inputs) in parts(asked["kind"], asked["graph"], asked["inputs"]).items()
    }
    sums = {name: hashlib.sha256((folder / f"{name}.so").read_bytes()).hexdigest() for name in outputs}
    for path in folder.iterdir():  # sources, and the log of a build that did not fail
        if path.suffix != ".so":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (folder / "manifest.json").write_text(json.dumps({"outputs": outputs, "sha256": sums}))


if __name__ == "__main__":
    main()
