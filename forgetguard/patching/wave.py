"""One forward pass that grows: the rows of one wave, and the hooks that make room for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from forgetguard.anatomy.members import Mlp
from forgetguard.patching.capture import by_row
from forgetguard.patching.clean import CleanPass
from forgetguard.patching.forward import forward
from forgetguard.patching.hooks import (
    PostHook,
    PreHook,
    first_tensor,
    hooked,
    idle,
    on_input,
    on_output,
    with_first_tensor,
)
from forgetguard.patching.prefix import LiveRows, Prefix, prefix_cache
from forgetguard.patching.rows import Carrier, grow, keep_rows
from forgetguard.patching.sources import Run, contribution_change


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive rows of a wavefront that belong to one run."""

    run: Run
    number: int  # the run's place
    first: int
    rows: Int[Tensor, "row"]  # the clean rows they descend from

    @property
    def span(self) -> slice:
        return slice(self.first, self.first + len(self.rows))


class Wave:
    """One forward pass that grows: the hooks and the state they share."""

    def __init__(
        self,
        clean: CleanPass,
        blocks: list[Block],
        index: Tensor,
        start: int,
        prefix: Prefix | None,
        entered: dict[int, Tensor] | None,
        *,
        full_carrier: bool,
    ) -> None:
        self.clean, self.anatomy = clean, clean.anatomy
        self.blocks, self.index, self.start, self.prefix = blocks, index, start, prefix
        self.entered = entered  # see `wavefront`
        n_positions = clean.ids.shape[1] - start
        axes = {n_positions} | {site.n_heads for site in self.anatomy.sites if site is not None}
        self.carrier = Carrier.build(len(clean.ids), axes, full=full_carrier)
        self.live = LiveRows(self.carrier.rows)
        self.first_layer = blocks[0].run.first_layer
        # Rows alive in each layer: those of the runs that start in it or before it.
        self.alive = [
            sum(len(block.rows) for block in blocks if block.run.first_layer <= layer)
            for layer in range(self.anatomy.n_layers)
        ]
        # The last layer is run at the readout positions only, but for what its attention reads.
        self.at = torch.tensor([position - start for position in clean.positions])
        self.trims = clean.read is not None and len(self.at) < n_positions
        self.full: Tensor | None = None  # the last layer's input at every position
        # A layer's new rows take its attention output from the clean run where that is possible.
        # Not where another first axis of the attention's arguments (MPT's biases are given head by
        # head) is as long as the batch, and could be taken for it.
        self.skips = {
            layer
            for layer in clean.attention
            if self._new(layer) > 0 and self.alive[layer] not in axes
        } - {block.run.first_layer for block in blocks if block.run.begun is not None}

    def logits(self) -> Float[Tensor, "row readout vocab"]:
        before: list[tuple[nn.Module, PreHook]] = []
        after: list[tuple[nn.Module, PostHook]] = []
        members = {member for block in self.blocks for member in block.run.members}
        patched = {member.layer for member in members if not isinstance(member, Mlp)}
        for layer, module in enumerate(self.anatomy.layers):
            before.append((module, self._enter(layer)))
            if layer in self.skips:
                attention = self.anatomy.site(layer).attention
                before.append((attention, self._narrow(layer)))
                after.append((attention, self._widen(layer)))
            if layer in patched:
                after.append((self.anatomy.site(layer).output_projection, self._patch(layer)))
            if Mlp(layer) in members:
                after.append((self.anatomy.mlp(layer), self._patch_mlp(Mlp(layer))))
        if self.trims:
            last = self.anatomy.n_layers - 1
            site = self.anatomy.site(last)
            before.append((site.attention, on_input(self._reread)))
            # z of the last layer is projected at the readout positions.
            before.append((site.output_projection, on_input(lambda z: self._trimmed(z, last))))
            after.append((self.anatomy.layers[last], on_output(self._restore)))
        ids = self.clean.ids[self.carrier.rows, self.start :]
        past = None if self.prefix is None else prefix_cache(self.prefix, self.live)
        with idle(self.clean.idle_before(self.first_layer)), hooked(before=before, after=after):
            return forward(self.anatomy, ids, self.at.tolist(), past=past)

    def _old(self, layer: int) -> int:
        """Rows that come from the layer before."""
        return self.alive[layer - 1] if layer > self.first_layer else 0

    def _new(self, layer: int) -> int:
        """Rows that start in this layer."""
        return self.alive[layer] - (self.alive[layer - 1] if layer else 0)

    def _clean_rows(self, stored: Tensor, layer: int) -> Tensor:
        """A clean run's tensor for the rows that start in `layer`."""
        rows = self.index[self._old(layer) : self.alive[layer]].to(stored.device)
        return stored[:, self.start :].index_select(0, rows)

    def _trimmed(self, values: Tensor, layer: int) -> Tensor:
        """`values` at the positions that `layer` is run at behind its attention."""
        if not self.trims or layer < self.anatomy.n_layers - 1:
            return values
        return values.index_select(1, self.at.to(values.device))

    def _reread(self, hidden: Tensor) -> Tensor:
        """Let the last layer's attention read every position; its caller has the readout's."""
        assert self.full is not None
        assert self.clean.read is not None
        return self.clean.read(self.full[: len(hidden)])

    def _restore(self, values: Tensor) -> Tensor:
        """Hand on every position, for what follows may rely on their number (GPT-2 reshapes):
        those that were not run are zero, and are cut off before the unembedding."""
        assert self.full is not None
        index = self.at.to(values.device)
        return values.new_zeros(self.full.shape).index_copy(1, index, values)

    def _enter(self, layer: int) -> PreHook:
        """Give the decoder layer its rows: those that arrive, and those that start here."""

        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if layer < self.first_layer:
                return None
            hidden = first_tensor(args, kwargs)
            parts = [hidden] if layer > self.first_layer else []
            parts += self._starting(layer)
            rows = self.live.index = self.index[: self.alive[layer]]
            # The carrier row that stands for each clean row.
            carried = rows if self.carrier.full else torch.zeros_like(rows)
            n_heads = site.n_heads if (site := self.anatomy.sites[layer]) is not None else 1
            self.full = torch.cat(parts) if len(parts) > 1 else parts[0]
            self._record(layer, self.full)
            beside = with_first_tensor(args, kwargs, None)
            args, kwargs = grow(beside, self.carrier, carried, n_heads)
            return with_first_tensor(args, kwargs, self._trimmed(self.full, layer))

        return enter

    def _record(self, layer: int, full: Tensor) -> None:
        """See `wavefront`: `entered`."""
        first = self.blocks[0]
        if self.entered is not None and first.number == 0:
            room = full.new_zeros(len(self.clean.ids), *full.shape[1:])
            self.entered.setdefault(layer, room)[first.rows.to(room.device)] = full[first.span]

    def _starting(self, layer: int) -> list[Tensor]:
        """What enters `layer` in the rows that start there, block by block."""
        found = []
        for block in self.blocks:
            if block.run.first_layer == layer:
                begun = block.run.begun
                clean = self.clean.residual[layer][:, self.start :] if begun is None else begun[1]
                found.append(clean.index_select(0, block.rows.to(clean.device)))
        return found

    def _narrow(self, layer: int) -> PreHook:
        """Let the attention see only the rows that need it."""

        def narrow(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            kept = max(1, self._old(layer))  # an attention of no rows at all is not defined
            self.live.index = self.index[:kept]
            return keep_rows((args, kwargs), self.alive[layer], kept)

        return narrow

    def _widen(self, layer: int) -> PostHook:
        """Append the new rows: the clean attention output and their patches."""

        def widen(attended: Tensor) -> Tensor:
            fresh = self._trimmed(self._clean_rows(self.clean.attention[layer], layer), layer)
            offset = self._old(layer)
            for block in self.blocks:
                if block.run.first_layer == layer:
                    span = slice(block.first - offset, block.first - offset + len(block.rows))
                    change = self._change(block, layer, None)
                    fresh = fresh if change is None else _add(fresh, span, change)
            return torch.cat([attended[:offset], fresh])

        return on_output(widen)

    def _patch(self, layer: int) -> PostHook:
        """Replace contributions of the rows that went through this layer's output projection."""

        def patch(_: nn.Module, args: Any, kwargs: Any, output: Tensor) -> Tensor:
            z = first_tensor(args, kwargs)
            for block in self.blocks:
                starts_here = block.run.first_layer == layer
                if starts_here and layer in self.skips:
                    continue
                change = self._change(block, layer, z[block.span])
                output = output if change is None else _add(output, block.span, change)
            return output

        return patch

    def _patch_mlp(self, member: Mlp) -> PostHook:
        """Replace the MLP's output in the rows of runs that ask for it."""

        def patch(returned: Tensor) -> Tensor:
            values = by_row(returned, self.alive[member.layer])
            for block in self.blocks:
                if member in block.run.at(member.layer):
                    rows = block.rows.to(values.device)
                    source_z = self._source_z(block.run.source.z[member], rows)
                    change = contribution_change(
                        values[block.span], self._trimmed(source_z, member.layer), None, None
                    )
                    values = _add(values, block.span, change)
            return values.reshape(returned.shape)

        return on_output(patch)

    def _change(
        self, block: Block, layer: int, z: Tensor | None
    ) -> Float[Tensor, "row pos d"] | None:
        """What the run's heads in `layer` change, summed, or None if it has none there; `z` is the
        live input of the output projection for the block's rows, or None to take the clean run's.
        """
        source = block.run.source
        total: Tensor | None = None
        for head in block.run.at(layer):
            if isinstance(head, Mlp):
                continue
            site = self.anatomy.site(layer)
            stored = self.clean.z[head]
            rows = block.rows.to(stored.device)
            live = (
                self._trimmed(stored[:, self.start :].index_select(0, rows), layer)
                if z is None
                else z[..., site.slice(head)]
            )
            change = contribution_change(
                live,
                self._trimmed(self._source_z(source.z[head], rows), layer),
                self.clean.own[head],
                None if source.weights is None else source.weights[head].to(live.device),
            )
            total = change if total is None else total + change
        return total

    def _source_z(self, z: Tensor, rows: Tensor) -> Tensor:
        z = z.to(rows.device)[:, self.start :]
        return z if len(z) == 1 else z.index_select(0, rows)


def _add(output: Tensor, span: slice, change: Tensor) -> Tensor:
    """`output` with `change` (float32) added to the rows of `span`."""
    output[span] = (output[span].float() + change).to(output.dtype)
    return output
