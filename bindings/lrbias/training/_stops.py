"""When a run ends before its last step: a `Stop` at work."""


class Stops:
    """What a Stop says of one run, whose rows a RunRecorder has."""

    def __init__(self, stop, record, recorder):
        self.loss = stop.loss
        self.intervals = () if stop.gradient is None else (record.every,)
        self._stop = stop
        self._every = record.every
        self._recorder = recorder

    def sentence(self, step):
        """Why the run stops at `step`, None where it goes on."""
        if self._gradient_reached(step):
            return f"the gradient norm is at most {self._stop.gradient:g}"
        if self._plateaus_reached(step):
            return f"the effective rank has reached its plateau {self._stop.plateaus}"
        return None

    def _gradient_reached(self, step):
        if self._stop.gradient is None or step % self._every:
            return False
        return self._recorder.gradient_norm(step) <= self._stop.gradient

    def _plateaus_reached(self, step):
        watch = self._recorder.watch
        if not watch or step % watch.every:
            return False
        self._recorder.drain()
        return watch.reached()
