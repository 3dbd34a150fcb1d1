"""`gradstore opponents`: the training examples that raise a query's loss."""

from __future__ import annotations

from gradstore_cli.influence import influence_command

opponents = influence_command(
    "opponents",
    """Find the training examples that most raised a query's loss.

    Columns: query, rank, id, label and path of the example found, score.
    A page or an image, -o FILE.html or FILE.png, shows both ends whichever
    is asked for: one pass over the store finds proponents and opponents.

    Example:
      gradstore opponents digits.store --id digit-0007
      gradstore opponents digits.store --query digit.png -o opponents.csv
      gradstore opponents digits.store --id digit-0007 --id digit-0012 --reduce mean -k 20
    """,
)
