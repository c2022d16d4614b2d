"""Texts as numbers: the next character, or the next word, of a client's text.

As in TFF's own experiments (Reddi et al., arXiv 2003.00295, appendix C): characters of Shakespeare
in pieces of 80, words of Stack Overflow in sentences of 20.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Padding is 0, and no label: it does not count.
PADDING = 0
# TFF's vocabulary of Shakespeare's characters, and what its texts hold besides.
_CHARACTERS = (
    "dhlptx@DHLPTX $(,048cgkoswCGKOSW[_#'/37;?bfjnrvzBFJNRVZ\"&*.26:\naeimquyAEIMQUY]!%)-159\r"
)
_SPECIAL = ("padding", "unknown", "beginning", "end")


class Vocabulary:
    """Numbers for symbols (characters or words): 0 pads, then unknown, beginning and end.

    Attributes:
      names: What each number stands for.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        """Numbers the symbols in their order."""
        self.names = (*_SPECIAL, *symbols)
        self._numbers = {symbol: len(_SPECIAL) + i for i, symbol in enumerate(symbols)}

    def __len__(self) -> int:
        """How many numbers there are."""
        return len(self.names)

    def encode(self, symbols: Sequence[str]) -> np.ndarray:
        """Returns beginning, the symbols and end, int32."""
        numbers = [self._numbers.get(symbol, 1) for symbol in symbols]
        return np.asarray([2, *numbers, 3], np.int32)


def characters() -> Vocabulary:
    """Returns the vocabulary of single characters."""
    return Vocabulary(tuple(_CHARACTERS))


def pieces(numbers: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts a text into pieces.

    Args:
      numbers: int32, see `Vocabulary.encode`.
      length: Numbers in a piece.

    Returns:
      Inputs and labels, int32 [pieces, length]: at each place the label is the next number. What is
      left over is padded.
    """
    count = max(1, -(-(len(numbers) - 1) // length))
    padded = np.full(count * length + 1, PADDING, np.int32)
    padded[: len(numbers)] = numbers
    inputs = padded[:-1].reshape(count, length).copy()
    labels = padded[1:].reshape(count, length).copy()
    # The last symbol is never an input without a label.
    inputs[labels == PADDING] = PADDING
    return inputs, labels


def sentence(numbers: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first piece of a text alone, int32 [length] each."""
    inputs, labels = pieces(numbers[: length + 1], length)
    return inputs[0], labels[0]
