"""Conversion between the padded tensors that callers pass and packed rows.

Shape letters: B sequences, S columns, T attended cells, H hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from layertap.backends.torch.encoder import Embeddings, PackedTensors
from layertap.backends.torch.layout import Layout
from layertap.errors import OptionError, TokenizerError
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
        """Find the cells where `mask` [B, S] is not 0; without a mask, all cells are attended.

        Raises:
            OptionError: the mask is not two-dimensional or has another shape.
        """
        batch, columns = shape
        if mask is None:
            return cls(shape, None, (columns,) * batch)
        if mask.ndim != 2:
            raise OptionError(
                f"attention_mask: expected [batch, sequence], found {mask.ndim} dimensions {list(mask.shape)}; "
                "masks between pairs of tokens cannot be packed"
            )
        if tuple(mask.shape) != shape:
            raise OptionError(f"attention_mask: expected shape {list(shape)}, found {list(mask.shape)}")
        attended = mask != 0
        lengths = tuple(attended.sum(1).tolist())
        if sum(lengths) == batch * columns:
            return cls(shape, None, lengths)
        return cls(shape, attended.reshape(-1).nonzero().squeeze(1), lengths)

    @property
    def layout(self) -> Layout:
        """Layout of the packed sequences; rows without attended cells have no sequence."""
        return Layout.of([length for length in self.lengths if length])

    def pack(self, padded: Tensor) -> Tensor:
        """Take the attended cells out of a padded tensor: [B, S, ...] -> [T, ...]."""
        flat = padded.reshape(-1, *padded.shape[2:])
        return flat if self.index is None else flat.index_select(0, self.index)

    def unpack(self, rows_TH: Tensor) -> Tensor:
        """Spread packed rows over a padded tensor, [T, H] -> [B, S, H]; other cells are zeros."""
        if self.index is not None:
            zeros = rows_TH.new_zeros(self.shape[0] * self.shape[1], rows_TH.shape[1])
            rows_TH = zeros.index_copy(0, self.index, rows_TH)
        return rows_TH.view(*self.shape, -1)

    def first_rows(self, rows_TH: Tensor) -> Tensor:
        """Take the first attended row of each of the n sequences: [T, H] -> [n, H]."""
        layout = self.layout
        return rows_TH.index_select(0, torch.as_tensor(layout.cu_seqlens[:-1], device=rows_TH.device))

    def spread(self, pooled_nH: Tensor) -> Tensor:
        """Spread one vector per sequence over the rows of the batch, [n, H] -> [B, H]; other rows are zeros."""
        kept = [i for i, length in enumerate(self.lengths) if length]
        if len(kept) == len(self.lengths):
            return pooled_nH
        zeros = pooled_nH.new_zeros(len(self.lengths), pooled_nH.shape[1])
        return zeros.index_copy(0, torch.tensor(kept, dtype=torch.int64, device=pooled_nH.device), pooled_nH)


def packed(
    cells: Cells,
    embeddings: Embeddings,
    positions: PositionTable,
    input_ids: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    inputs_embeds: Tensor | None,
) -> PackedTensors:
    """Concatenate the attended cells of a padded batch; the arguments are those of the models' `forward`.

    Raises:
        OptionError: shapes do not fit together, or a row has more tokens than the model has positions.
        TokenizerError: an id is beyond the end of its embedding table.
    """
    given = input_ids if input_ids is not None else inputs_embeds
    assert given is not None
    if position_ids is None:
        position_ids = _default_positions(positions, cells.shape, input_ids, given.device)
    positions_T = cells.pack(_broadcast("position_ids", position_ids, cells.shape))
    _check_positions(positions_T, positions)
    types_T = ids_T = None
    if token_type_ids is not None:
        assert embeddings.token_type_embeddings is not None, "every family of this door has token types"
        types_T = cells.pack(_broadcast("token_type_ids", token_type_ids, cells.shape))
        _check_ids("token_type_ids", types_T, embeddings.token_type_embeddings)
    if input_ids is not None:
        ids_T = cells.pack(input_ids).long()
        _check_ids("input_ids", ids_T, embeddings.word_embeddings)
    return PackedTensors(
        input_ids=ids_T,
        position_ids=positions_T,
        token_type_ids=types_T,
        layout=cells.layout,
        inputs_embeds=None if inputs_embeds is None else cells.pack(inputs_embeds),
    )


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


def _broadcast(name: str, ids: Tensor, shape: tuple[int, int]) -> Tensor:
    try:
        return ids.long().expand(shape)
    except RuntimeError:
        raise OptionError(f"{name}: expected shape {list(shape)}, found {list(ids.shape)}") from None


def _default_positions(
    table: PositionTable, shape: tuple[int, int], input_ids: Tensor | None, device: torch.device
) -> Tensor:
    """Return the default position ids, int64 [S] or [B, S], as transformers counts them in a padded batch."""
    columns = torch.arange(shape[1], device=device)
    if table.padding_id is None:
        return columns
    if input_ids is None:
        return columns + (table.padding_id + 1)
    counted = (input_ids != table.padding_id).long()
    return counted.cumsum(1) * counted + table.padding_id


def _check_positions(positions_T: Tensor, table: PositionTable) -> None:
    if positions_T.numel() and not 0 <= int(positions_T.min()) <= int(positions_T.max()) < table.rows:
        raise OptionError(
            f"a token at position {int(positions_T.max())} of a table with {table.rows} rows: this model takes at "
            f"most {table.max_length} tokens; tokenize with truncation=True, max_length={table.max_length}"
        )


def _check_ids(name: str, ids_T: Tensor, table: nn.Embedding) -> None:
    if ids_T.numel() and not 0 <= int(ids_T.min()) <= int(ids_T.max()) < table.num_embeddings:
        raise TokenizerError(
            f"{name}: ids from {int(ids_T.min())} to {int(ids_T.max())}, and the model's table has "
            f"{table.num_embeddings} rows: tokenizer and model do not belong together"
        )
