"""A handler that misbehaves on request. Plain Python 3.8."""

import os
import signal
import sys
import time
from multiprocessing import shared_memory


class Refusal(Exception):
    hint = "please"


class Handler:
    def __init__(self, options):
        self.segments = []
        if options.get("refuse"):
            raise Refusal("will not load")
        if options.get("hang"):
            time.sleep(1000)

    def info(self):
        return {"path": sys.path[:1], "cwd": os.getcwd()}

    def echo(self, values, arrays):
        return values, arrays

    def double(self, values, arrays):
        return {"sum": float(arrays["x"].sum())}, {"x": 2 * arrays["x"]}

    def fail(self, values, arrays):
        raise Refusal("no")

    def _hidden(self, values, arrays):
        return {}, {}

    def bad_reply(self, values, arrays):
        return {"x": object()}, {}

    def litter(self, values, arrays):
        """Fork children that hold shared memory and every pipe, one of them in a session of its own."""
        pids = []
        for k in range(3):
            self.segments.append(shared_memory.SharedMemory(create=True, size=4096))
            pid = os.fork()
            if pid == 0:
                if k == 2:
                    os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                self.segments.append(shared_memory.SharedMemory(create=True, size=4096))
                while True:
                    time.sleep(1000)
            pids.append(pid)
        return {"pids": pids, "names": [segment.name for segment in self.segments]}, {}

    def hang(self, values, arrays):
        while True:
            time.sleep(1000)

    def hang_holding_the_lock(self, values, arrays):
        """A vendor's C call that never lets go of the interpreter's lock."""
        import ctypes

        ctypes.PyDLL(None).pause()

    def leave(self, values, arrays):
        sys.exit(values["code"])

    def suicide(self, values, arrays):
        os.kill(os.getpid(), signal.SIGSEGV)

    def shout(self, values, arrays):
        for k in range(values["lines"]):
            print(f"line {k} " + "x" * 1000)
        os.write(2, b"the end\n")
        return {}, {}

    def garbage(self, values, arrays):
        os.write(int(sys.argv[2]), bytes(values["bytes"]))
        time.sleep(1000)

    def half_a_frame(self, values, arrays):
        os.write(int(sys.argv[2]), b"NVC1\x00\x01\x00\x00{")
        os._exit(3)

    def close(self):
        if self.segments:
            time.sleep(1000)
