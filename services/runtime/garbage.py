"""How the process looks for garbage: among what came after it began to serve, not among all that it
consists of.
"""

import gc


def set_aside_what_stays() -> None:
    """Have the garbage collector never look again at the objects that exist now; call it once,
    before serving.

    A full collection goes through each object of torch and of every other module, and stops the
    process meanwhile (decision 0033). What is garbage already is freed first: it would stay for
    good.
    """
    gc.collect()
    gc.freeze()
