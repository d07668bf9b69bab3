"""Functions that numba compiles, from its cache where that serves; where it does not they run all the same.

The cache may have no folder that can be written, lie on a full disk, or hold a file that was cut short. numba fails
then, at every start. Here what is damaged is made anew, what cannot be kept is compiled at each start, and a warning
says so once in a process.
"""

from __future__ import annotations

import os
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from numba import njit
from numba.core import caching

from nervecord.errors import NervecordError

Value = TypeVar("Value")

_told = False
"""Whether the warning has been given in this process."""
_serves = True
"""Whether the cache can be used in this process, as far as it is known."""
_keeps = True
"""Whether it keeps what is compiled for the next process, as far as it is known."""


def serves() -> bool:
    """Whether functions should be asked of the cache."""
    return _serves


def keeps() -> bool:
    """Whether what was compiled in this process so far is in the cache, for the next one."""
    return _keeps


def compiled(function: Callable[..., Any], *, cache: bool = True) -> Any:
    """`function` as numba compiles it at its first call: without Python's lock, and with the floats of numpy.

    Args:
        cache: keep it for the next process; where there is no folder to keep it in, it is not.
    """
    if cache:
        cached = _from_read_only(function)
        if cached is not None:
            return cached
        try:
            return njit(cache=True, nogil=True, error_model="numpy")(function)
        except RuntimeError as error:  # no folder can be written
            _tell_unkept(error)
    return njit(nogil=True, error_model="numpy")(function)


def _from_read_only(function: Callable[..., Any]) -> Any:
    """`function` with the cache that NUMBA_CACHE_DIR names, as it was shipped: numba takes a folder only where it can
    write, and else another one without a word. None where there is no such folder, or it can be written."""
    # Its name has an underscore in older versions of numba.
    numbas: Any = caching
    base: Any = getattr(numbas, "UserProvidedCacheLocator", None) or numbas._UserProvidedCacheLocator

    class Locator(base):  # type: ignore[misc]
        def ensure_cache_path(self) -> None:
            path = self.get_cache_path()
            if not os.path.isdir(path) or os.access(path, os.W_OK):
                raise OSError(f"{path} is no folder that is read-only")

    class Contents(numbas.CompileResultCacheImpl):  # type: ignore[misc]
        _locator_classes = (Locator,)

    class Cache(numbas.FunctionCache):  # type: ignore[misc]
        _impl_class = Contents

    function_compiled: Any = njit(nogil=True, error_model="numpy")(function)
    try:
        function_compiled._cache = Cache(function)
    except RuntimeError:  # there is no such folder
        return None
    return function_compiled


def mended(call: Callable[[], Value], functions: Sequence[Any], without: Callable[[], Value]) -> Value:
    """What `call` gives, which makes numba compile these functions or read them from its cache.

    Args:
        call: may be called several times. functions: of `compiled`. without: the same with functions that have no
            cache; called where it cannot be used at all.

    Raises:
        Exception: what the call itself raises, or what `without` does.
    """
    healed = False
    while True:
        before = sum(len(each.signatures) for each in functions)
        try:
            return call()
        except (NervecordError, MemoryError):
            raise
        except OSError as error:
            _tell_unkept(error)
            # What was compiled and could not be kept is there at the next try. Where nothing was, not even reading
            # goes.
            if before == sum(len(each.signatures) for each in functions):
                break
        except Exception as error:
            if not _is_of_cache(error):
                raise
            if healed:
                break
            healed = True
            try:
                for each in functions:
                    each.recompile()  # forgets what the cache says of it
            except OSError:
                _tell_unkept(error)
                break
            _tell(f"was damaged and is made anew: {error}")
    result = without()
    global _serves
    _serves = False
    return result


def _is_of_cache(error: BaseException) -> bool:
    """Whether an error arose while numba read or wrote its cache, and not in the call itself."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__") == "numba.core.caching" for frame, _ in frames)


def _tell_unkept(error: BaseException) -> None:
    global _keeps
    _keeps = False
    _tell(
        f"cannot be used, each start compiles anew: {error}. That takes half a minute: set NUMBA_CACHE_DIR to a folder "
        "that nervecord warmup --to DIR has filled, or open a library of nervecord compile --shared"
    )


def _tell(what: str) -> None:
    global _told
    if not _told:
        _told = True
        warnings.warn(f"numba's cache {what}", RuntimeWarning, stacklevel=4)


class Guarded:
    """A function of `compiled` that is called from Python, now and then with other types.

    Args:
        function: what is compiled.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._compiled = compiled(function, cache=serves())
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives."""
        return mended(lambda: self._compiled(*arguments), [self._compiled], lambda: self._without(*arguments))

    def _without(self, *arguments: Any) -> Any:
        self._compiled = compiled(self.function, cache=False)
        return self._compiled(*arguments)
