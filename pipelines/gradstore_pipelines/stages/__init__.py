"""The stages: `train` (in `gradstore.models.training`, one unit) and `sketch` (a shard of a checkpoint a unit)."""
