"""How a command of this project ends, as a shell and a runner see it."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Below 0, as Python has it, stands the signal that ended a process."""

    FAILED = 1
    """It failed, and may do so again."""
    MISTAKE = 2
    """The user has to mend something; trying again would not help."""
    OUT_OF_MEMORY = 3
    """It may end well with less to hold at a time."""
    ENGINE_AWAY = 4
    """The container engine did not answer; another try may."""
    STORE_AWAY = 5
    """The store that machines share, or an input in it, was not to be had; another try may."""
    DISK_FULL = 6
    """This machine has no room left; another may have."""
    UNFIT = 7
    """This machine lacks what the step needs, an engine or an image; another may have it."""
    INTERRUPTED = 130
    """Ctrl-C, or SIGTERM."""
