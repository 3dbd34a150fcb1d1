"""`gradstore proponents`: the training examples that lower a query's loss."""

from __future__ import annotations

from gradstore_cli.influence import influence_command

proponents = influence_command(
    "proponents",
    """Find the training examples that most lowered a query's loss.

    Columns: query, rank, id, label and path of the example found, score.
    A page or an image, -o FILE.html or FILE.png, shows both ends whichever
    is asked for: one pass over the store finds proponents and opponents.

    Example:
      gradstore proponents digits.store --id digit-0007
      gradstore proponents digits.store --query digit.png --normalise relatif -k 5
      gradstore proponents digits.store --id digit-0007 --only-label 3 -o behind.html
      gradstore proponents digits.store --query digit.png --preconditioned
      gradstore proponents digits.store --query digits.npz --checkpoint -1 -o all.csv
    """,
)
