"""The signals that ask a process to end."""

import signal

# Ctrl-C, an orchestrator, and a terminal that is closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ending_signals() -> list[signal.Signals]:
    """Those that are to end this process: SIGHUP is none where it is ignored already, as `nohup`
    has it.
    """
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in ENDING if number != signal.SIGHUP or not is_ignored]


def may_repeat(number: signal.Signals) -> bool:
    """Whether it may come again though nobody asked twice: of a closed terminal the shell and the
    kernel each tell.
    """
    return number == signal.SIGHUP
