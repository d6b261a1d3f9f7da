"""Conversion between the padded tensors that callers pass and packed rows, and checks of ids and positions.

Shape letters: B sequences, S columns, T attended cells, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layertap.backends.torch.devices import upload
from layertap.backends.torch.layout import Layout
from layertap.errors import OptionError, TokenizerError
from layertap.hf.observed import is_traced
from layertap.models.positions import PositionTable


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Attended cells of a padded [B, S] batch.

    Attributes:
        shape: shape of the batch, (B, S).
        index: int64 [T], the attended cells in row-major order, or None if all cells are attended.
        lengths: number of attended cells in each of the B rows; a row may have none.
    """

    shape: tuple[int, int]
    index: Tensor | None
    lengths: tuple[int, ...]

    @classmethod
    def of(cls, shape: tuple[int, int], mask: Tensor | None) -> Cells:
        """Find the cells where `mask` [B, S] is not 0; without a mask, all cells are attended."""
        batch, columns = shape
        if mask is None:
            return cls(shape, None, (columns,) * batch)
        # Copied to the processor once; every number read from a CUDA device waits for all that runs there.
        attended = (mask != 0).cpu()
        lengths = tuple(attended.sum(1).tolist())
        if sum(lengths) == batch * columns:
            return cls(shape, None, lengths)
        return cls(shape, upload(attended.reshape(-1).nonzero().squeeze(1), mask.device), lengths)

    @property
    def layout(self) -> Layout:
        """Layout of the packed sequences; rows without attended cells have no sequence."""
        return Layout.of([length for length in self.lengths if length])

    def pack(self, padded: Tensor) -> Tensor:
        """Take the attended cells out of a padded tensor: [B, S, ...] -> [1, T, ...]."""
        flat = padded.reshape(-1, *padded.shape[2:])
        return (flat if self.index is None else flat.index_select(0, self.index)).unsqueeze(0)

    def unpack(self, rows_1TH: Tensor) -> Tensor:
        """Spread packed rows over a padded tensor, [1, T, H] -> [B, S, H]; other cells are zeros."""
        rows_TH = rows_1TH[0]
        if self.index is not None:
            zeros = rows_TH.new_zeros(self.shape[0] * self.shape[1], rows_TH.shape[1])
            rows_TH = zeros.index_copy(0, self.index, rows_TH)
        return rows_TH.view(*self.shape, rows_TH.shape[-1])  # -1 cannot be told where the batch has no row

    def first_rows(self, rows_1TH: Tensor) -> Tensor:
        """Take the first attended row of each of the n sequences: [1, T, H] -> [n, 1, H]."""
        begins = upload(self.layout.cu_seqlens[:-1], rows_1TH.device)
        return rows_1TH[0].index_select(0, begins).unsqueeze(1)

    def spread(self, pooled_nH: Tensor) -> Tensor:
        """Spread one vector per sequence over the rows of the batch, [n, H] -> [B, H]; other rows are zeros."""
        kept = [i for i, length in enumerate(self.lengths) if length]
        if len(kept) == len(self.lengths):
            return pooled_nH
        zeros = pooled_nH.new_zeros(len(self.lengths), pooled_nH.shape[1])
        return zeros.index_copy(0, upload(kept, pooled_nH.device, torch.int64), pooled_nH)


def without_masked(padded: Tensor, attended: Tensor | None) -> Tensor:
    """Replace the rows of cells [B, S] that are not attended by zeros: [B, S, H] -> [B, S, H]."""
    return padded if attended is None else padded.masked_fill((attended == 0).unsqueeze(-1), 0.0)


def with_first_attended(padded: Tensor, attended: Tensor | None) -> Tensor:
    """Put the row of the first attended cell into column 0 where that is padding: [B, S, H] -> [B, S, H]."""
    if attended is None or (not is_traced(padded, attended) and bool((attended[:, 0] != 0).all())):
        return padded
    columns = (attended != 0).long().argmax(1)
    first = padded.gather(1, columns[:, None, None].expand(-1, 1, padded.shape[2]))
    return torch.cat([first, padded[:, 1:]], 1)


def check_shapes(shape: tuple[int, int], mask: Tensor | None) -> None:
    """Refuse a mask that is not two-dimensional or has another shape than the batch.

    Raises:
        OptionError: the mask does not fit.
    """
    if mask is None:
        return
    if mask.ndim != 2:
        raise OptionError(
            f"attention_mask: expected [batch, sequence], found {mask.ndim} dimensions {list(mask.shape)}; "
            "masks between pairs of tokens cannot be packed"
        )
    if tuple(mask.shape) != shape:
        raise OptionError(f"attention_mask: expected shape {list(shape)}, found {list(mask.shape)}")


def batch_shape(input_ids: Tensor | None, inputs_embeds: Tensor | None, hidden_size: int) -> tuple[int, int]:
    """Return the shape (B, S) of the ids or the embeddings."""
    if input_ids is not None:
        if not isinstance(input_ids, Tensor) or input_ids.ndim != 2 or input_ids.is_floating_point():
            raise OptionError(f"input_ids: expected integers [batch, sequence], found {_described(input_ids)}")
        return input_ids.shape[0], input_ids.shape[1]
    if not isinstance(inputs_embeds, Tensor) or inputs_embeds.ndim != 3 or inputs_embeds.shape[2] != hidden_size:
        raise OptionError(
            f"inputs_embeds: expected floats [batch, sequence, {hidden_size}], found {_described(inputs_embeds)}"
        )
    return inputs_embeds.shape[0], inputs_embeds.shape[1]


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"a {type(value).__name__}: tokenize with return_tensors='pt'"


def broadcast(name: str, ids: Tensor | None, shape: tuple[int, int]) -> Tensor | None:
    """Return int64 ids of the shape of the batch, from one row or several.

    Raises:
        OptionError: another shape.
    """
    if ids is None:
        return None
    try:
        return ids.long().expand(shape)
    except RuntimeError:
        raise OptionError(f"{name}: expected shape {list(shape)}, found {list(ids.shape)}") from None


def default_positions(
    table: PositionTable, shape: tuple[int, ...], input_ids: Tensor | None, device: torch.device
) -> Tensor:
    """Return the default position ids, int64 [B, S] or [1, S], as transformers counts them in a padded batch."""
    columns = torch.arange(shape[1], device=device).unsqueeze(0)
    if table.padding_id is None:
        return columns
    if input_ids is None:
        return (columns + (table.padding_id + 1)).expand(shape)
    counted = (input_ids != table.padding_id).long()
    return counted.cumsum(1) * counted + table.padding_id


def check_positions(positions: Tensor, table: PositionTable, module: nn.Module) -> None:
    """Refuse positions beyond the table.

    Raises:
        OptionError: a position is beyond the table.
    """
    rows = _rows(module)
    if rows is None or is_traced(positions) or not positions.numel():
        return
    first, last = _range(positions)
    if not 0 <= first <= last < rows:
        longest = table.max_length + rows - table.rows
        raise OptionError(
            f"a token at position {last} of a table with {rows} rows: this model takes at "
            f"most {longest} tokens; tokenize with truncation=True, max_length={longest}"
        )


def check_ids(name: str, ids: Tensor, module: nn.Module) -> None:
    """Refuse ids beyond the table that looks them up.

    Raises:
        TokenizerError: an id is beyond the table.
    """
    rows = _rows(module)
    if rows is None or is_traced(ids) or not ids.numel():
        return
    first, last = _range(ids)
    if not 0 <= first <= last < rows:
        raise TokenizerError(
            f"{name}: ids from {first} to {last}, and the model's table has {rows} rows: tokenizer "
            "and model do not belong together; if you added tokens, call model.resize_token_embeddings(len(tokenizer))"
        )


def _range(ids: Tensor) -> tuple[int, int]:
    """Return the smallest and the largest id, read from the device at once."""
    first, last = torch.stack(torch.aminmax(ids)).tolist()
    return first, last


def _rows(module: nn.Module) -> int | None:
    """Return the number of rows of a table, or None of a module that replaces one."""
    return module.num_embeddings if isinstance(module, nn.Embedding) else None
