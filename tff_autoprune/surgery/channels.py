"""Which channels must be removed together: a union-find over all channels of a model.

Every output channel of every layer that makes channels gets a number here. Rules then say which of
them are one and the same (the two operands of an addition), and which must stay (they feed the
model's output). What is left are classes of channels that are kept or removed together.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

#: Stands where a position of a tensor belongs to no channel, such as the pixels of the input.
NONE = -1


class Channels:
    """All channels of one model, and what is known of them."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)
        self._fixed: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._parent)

    def new(self, number: int) -> np.ndarray:
        """Returns `number` new channels, int64 [number]."""
        ids = np.arange(len(self._parent), len(self._parent) + number)
        self._parent = np.concatenate([self._parent, ids])
        return ids

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Returns the representative of each channel; NONE stays NONE."""
        ids = np.asarray(ids)
        if not len(self._parent):
            return ids
        while True:
            up = np.where(ids >= 0, self._parent[ids], NONE)
            if np.array_equal(up, ids):
                return ids
            ids = up

    def unify(self, first: np.ndarray, second: np.ndarray, reason: str) -> None:
        """Makes two arrays of channels, broadcast against each other, equal element by element.

        Args:
          first: Channel numbers.
          second: Channel numbers; where exactly one of the two is NONE, the other becomes fixed.
          reason: Why a channel that meets NONE must stay.
        """
        first, second = np.broadcast_arrays(self.find(first), self.find(second))
        different = first != second
        if not different.any():
            return
        pairs = np.unique(np.stack([first[different], second[different]]), axis=1)
        alone = (pairs == NONE).any(axis=0)
        if alone.any():
            self.fix(pairs[:, alone].max(axis=0), reason)
        pairs = np.sort(pairs[:, ~alone], axis=0)
        keep, merge = pairs
        if len(np.unique(merge)) == len(merge) and not np.isin(merge, keep).any():
            # Nobody in `merge` is anybody's representative afterwards: one assignment does all.
            self._link(keep, merge)
        else:
            for one, other in pairs.T:
                root, child = sorted((self._root(one), self._root(other)))
                if root != child:
                    self._link(np.array([root]), np.array([child]))

    def fix(self, ids: np.ndarray, reason: str) -> None:
        """Marks channels as not removable; the first reason given is kept."""
        for root in np.unique(self.find(ids)):
            if root != NONE:
                self._fixed.setdefault(int(root), reason)

    def reason(self, channel: int) -> Optional[str]:
        """Returns why a channel must stay, None if it may be removed."""
        return self._fixed.get(int(self.find(np.array([channel]))[0]))

    def _root(self, channel: int) -> int:
        while self._parent[channel] != channel:
            channel = self._parent[channel]
        return int(channel)

    def _link(self, roots: np.ndarray, children: np.ndarray) -> None:
        self._parent[children] = roots
        if self._fixed:
            for root, child in zip(roots.tolist(), children.tolist()):
                reason = self._fixed.pop(child, None)
                if reason is not None:
                    self._fixed.setdefault(root, reason)
