"""Every error gradstore raises on purpose.

A message says what was found (with its value), what was expected, and what to do next. Each class also
inherits the builtin that a caller would expect, so `except FileNotFoundError` keeps working:

    GradstoreError
    ├── SourceError (ValueError)                 the data cannot be used as it is
    │   ├── SourceNotFoundError (FileNotFoundError)
    │   ├── CorruptExampleError                  a file or row cannot be decoded
    │   ├── NonFiniteDataError                   NaN or infinity in an example
    │   └── MissingLabelsError                   labels are needed and there are none
    ├── TaskError (ValueError)                   the model or its loss breaks the Task contract
    │   ├── TaskNotFoundError (ImportError)      `module:object` does not lead to a Task
    │   ├── LossShapeError                       not one loss an example
    │   ├── MixedExamplesError                   an example's loss depends on its neighbours in the batch
    │   ├── TrainingModeError                    BatchNorm or dropout in training mode
    │   ├── ParametersError                      the pattern tracks no parameter
    │   ├── BadExamplesError                     examples for which nothing can be computed, by name
    │   └── CheckpointError                      weights that do not fit, or without a learning rate
    ├── ProbeError (RuntimeError)                the engine and plain autograd disagree
    ├── ShapeError (ValueError)                  arrays whose shapes do not go together
    ├── StoreError
    │   ├── StoreNotFoundError (FileNotFoundError)
    │   ├── StoreMismatchError (ValueError)      made by other settings
    │   ├── StoreFormatError (ValueError)        a format this version does not read
    │   ├── StoreIncompleteError (RuntimeError)  its build has not finished
    │   ├── StoreCorruptError (OSError)          bytes differ from what was committed
    │   ├── PlaceError (OSError)                 a bucket that cannot be reached or read
    │   └── StoreWriteError (OSError)            disk full, read-only, no permission
    ├── QueryError (ValueError)                  a question that this store cannot answer
    │   ├── UnknownExampleError (LookupError)    an id that is not in the store
    │   └── UnknownSignalError (LookupError)
    ├── IndexFileError
    │   ├── IndexNotFoundError (FileNotFoundError)
    │   └── IndexMismatchError (ValueError)      built from other rows than the store now holds
    ├── DeviceError (ValueError)                 a device that torch does not have here
    ├── WorkerError (RuntimeError)               units of work that failed again and again
    │   ├── WorkerMismatchError                  a worker with other code, data or weights than the build's
    │   ├── SchedulerError (ConnectionError)     no scheduler answers, or it has gone
    │   └── JobError                             a batch system refuses a job, or it ended before it was of use
    └── MissingExtraError (ImportError)          an optional dependency is not installed
"""


class GradstoreError(Exception):
    """Base of every error that gradstore raises on purpose."""


class SourceError(GradstoreError, ValueError):
    """The data cannot be used as it is."""


class SourceNotFoundError(SourceError, FileNotFoundError):
    """No data at the given path."""


class CorruptExampleError(SourceError):
    """A file or row cannot be decoded."""


class NonFiniteDataError(SourceError):
    """NaN or infinity in an example."""


class MissingLabelsError(SourceError):
    """Labels are needed and there are none."""


class TaskError(GradstoreError, ValueError):
    """The model or its loss breaks the Task contract."""


class TaskNotFoundError(TaskError, ImportError):
    """`module:object` does not lead to a Task."""


class LossShapeError(TaskError):
    """The loss is not one number an example."""


class MixedExamplesError(TaskError):
    """An example's loss depends on the others in its batch."""


class TrainingModeError(TaskError):
    """BatchNorm or dropout runs in training mode."""


class ParametersError(TaskError):
    """The pattern tracks no parameter."""


class BadExamplesError(TaskError):
    """Examples for which nothing can be computed, by name; all others are done."""


class CheckpointError(TaskError):
    """Weights that do not fit the model, or that carry no learning rate."""


class ProbeError(GradstoreError, RuntimeError):
    """The engine and plain autograd disagree about a gradient."""


class ShapeError(GradstoreError, ValueError):
    """Arrays whose shapes do not go together."""


class StoreError(GradstoreError):
    """Base of what can be wrong with a store."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """No gradient store at the given path."""


class StoreMismatchError(StoreError, ValueError):
    """The store was made by other settings."""


class StoreFormatError(StoreError, ValueError):
    """The store has a format that this version does not read."""


class StoreIncompleteError(StoreError, RuntimeError):
    """The store's build has not finished."""


class StoreCorruptError(StoreError, OSError):
    """Bytes in the store differ from what was committed."""


class PlaceError(StoreError, OSError):
    """A bucket cannot be reached or read: network, name, credentials."""


class StoreWriteError(StoreError, OSError):
    """The store cannot be written: disk full, read-only, no permission."""


class QueryError(GradstoreError, ValueError):
    """A question that this store cannot answer."""


class UnknownExampleError(QueryError, LookupError):
    """An id that is not in the store."""


class UnknownSignalError(QueryError, LookupError):
    """A signal that does not exist."""


class IndexFileError(GradstoreError):
    """Base of what can be wrong with a search index."""


class IndexNotFoundError(IndexFileError, FileNotFoundError):
    """The store has no such index."""


class IndexMismatchError(IndexFileError, ValueError):
    """The index was built from other rows than the store now holds."""


class DeviceError(GradstoreError, ValueError):
    """A device that torch does not have here."""


class WorkerError(GradstoreError, RuntimeError):
    """Units of work that failed again and again."""


class WorkerMismatchError(WorkerError):
    """A worker with other code, data or weights than the build was planned with."""


class SchedulerError(WorkerError, ConnectionError):
    """No scheduler answers, or it has gone."""


class JobError(WorkerError):
    """A batch system refuses a job, or a job ended before it was of any use."""


class MissingExtraError(GradstoreError, ImportError):
    """An optional dependency is not installed."""
