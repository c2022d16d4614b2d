"""What a person sees while a run goes on: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
from typing import Any, Optional, TextIO

import tqdm


class Progress:
    """Shows rounds and messages; nothing at all if quiet."""

    def __init__(
        self,
        total_rounds: int,
        *,
        first_round: int = 0,
        quiet: bool = False,
        stream: Optional[TextIO] = None,
    ) -> None:
        """Starts the display.

        Args:
          total_rounds: Rounds of the whole run.
          first_round: Rounds that were completed before (a resumed run).
          quiet: Whether to show nothing.
          stream: Where to write; stderr by default.
        """
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._total = total_rounds
        self._bar = None
        if not quiet and self._stream.isatty():
            self._bar = tqdm.tqdm(
                total=total_rounds,
                initial=first_round,
                unit="round",
                file=self._stream,
                dynamic_ncols=True,
            )

    def message(self, text: str) -> None:
        """Shows one line of text."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            print(text, file=self._stream, flush=True)

    def round(self, row: dict[str, Any], *, accuracy: Optional[float], total_bytes: float) -> None:
        """Shows a finished round.

        Args:
          row: The row of metrics.csv.
          accuracy: The newest validation accuracy, if there is one.
          total_bytes: Communication so far.
        """
        shown = {
            "train": f"{row['train_accuracy']:.3f}",
            "validation": "-" if accuracy is None else f"{accuracy:.3f}",
            "parameters": f"{row['parameters']:,}",
            "traffic": f"{total_bytes / 1e6:.1f} MB",
        }
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update()
        else:
            text = "  ".join(f"{key} {value}" for key, value in shown.items())
            self.message(
                f"round {row['round']}/{self._total}  {text}  {row['seconds']:.2f} s/round"
            )

    def close(self) -> None:
        """Ends the display."""
        if self._bar is not None:
            self._bar.close()
