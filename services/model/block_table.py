"""Which blocks of the KV cache belong to which sequence: pure bookkeeping, no tensors."""

from dataclasses import dataclass

BLOCK_TOKENS = 16


@dataclass(frozen=True)
class BlockTable:
    """The blocks of one sequence, in the order of its tokens.

    The blocks are neighbours, so that one attention call serves the sequence on a CPU; readers that
    take a table of blocks get one from `blocks`.
    """

    first_block: int
    num_blocks: int

    @property
    def blocks(self) -> range:
        return range(self.first_block, self.first_block + self.num_blocks)

    @property
    def first_slot(self) -> int:
        """Slot of the sequence's token 0; token p lies in slot `first_slot + p`."""
        return self.first_block * BLOCK_TOKENS

    @property
    def num_tokens(self) -> int:
        return self.num_blocks * BLOCK_TOKENS


class BlockPool:
    """Hands out runs of neighbouring blocks, first fit, and takes them back.

    A sequence reserves its worst case once, when it is admitted, so that it cannot run out later.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._free = (
            [BlockTable(0, num_blocks)] if num_blocks else []
        )  # disjoint, ascending, never touching

    @property
    def free_tokens(self) -> int:
        return sum(run.num_tokens for run in self._free)

    def reserve(self, num_tokens: int) -> BlockTable | None:
        """Room for `num_tokens`, or None while no run of free blocks is long enough."""
        wanted = blocks_for(num_tokens)
        for position, run in enumerate(self._free):
            if run.num_blocks >= wanted:
                rest = BlockTable(run.first_block + wanted, run.num_blocks - wanted)
                self._free[position : position + 1] = [rest] if rest.num_blocks else []
                return BlockTable(run.first_block, wanted)
        return None

    def release(self, table: BlockTable) -> None:
        """Take the blocks of a finished sequence back. Raises ValueError when they are free
        already.
        """
        runs = sorted([*self._free, table], key=lambda run: run.first_block)
        merged: list[BlockTable] = []
        for run in runs:
            end = merged[-1].blocks.stop if merged else -1
            if run.first_block < end or run.blocks.stop > self.num_blocks:
                raise ValueError(f"blocks {run.blocks} are not reserved")
            if run.first_block == end:
                merged[-1] = BlockTable(
                    merged[-1].first_block, merged[-1].num_blocks + run.num_blocks
                )
            else:
                merged.append(run)
        self._free = merged


def blocks_for(num_tokens: int) -> int:
    """Blocks that `num_tokens` take, at least one."""
    return max(1, -(-num_tokens // BLOCK_TOKENS))
