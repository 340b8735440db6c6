"""What can go wrong for a reason that the user can mend. `app.cli` prints the message and exits with the code."""


class UserError(Exception):
    """Names the thing, the place and the mend."""

    exit_code = 1


class ConfigError(UserError):
    """All faults that were found in a configuration, one line each."""

    exit_code = 2

    def __init__(self, faults: list[str]):
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n".join(self.faults)


class DataError(UserError):
    """Text or prepared data that cannot be used as it is."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint that is missing, damaged or of another model."""

    exit_code = 4


class StorageError(UserError):
    """A disk that is full or cannot be written."""

    exit_code = 5


class NumericsError(UserError):
    """Losses or gradients that stay non-finite."""

    exit_code = 6


class WorkerError(UserError):
    """A data worker that died or hangs."""

    exit_code = 7


class RankError(UserError):
    """A process of a run that died, froze, or holds other weights than the rest."""

    exit_code = 8


class LockedError(UserError):
    """A run directory that another process is writing."""

    exit_code = 9


class OutOfMemory(UserError):  # noqa: N818 - torch's error has this name
    """A batch that does not fit into memory."""

    exit_code = 10


class Stopped(UserError):  # noqa: N818 - it is no error
    """A signal ended the run after its state was saved; 128 + the signal's number."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message, signal_number)  # all arguments, so that a launcher can send it between processes
        self.exit_code = 128 + signal_number

    def __str__(self) -> str:
        return str(self.args[0])
