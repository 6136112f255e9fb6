"""What stages share. In: settings. Out: the report, gpuspan, the workload. Absent: what one stage alone needs."""

from .observe import Gpuspan, Refused
from .worker import Died, Worker


class Context:
    """Handed from stage to stage."""

    def __init__(self, settings, report):
        self.settings = settings
        self.report = report
        self.gpuspan = Gpuspan(settings.binary, settings.raw)
        #: Why gpuspan cannot attach here; None where it can.
        self.blind = None
        self.worker = None
        self.started = 0

    def workload(self, deadline):
        """The running workload; a new one where the last has died."""
        if self.worker is None or self.worker.child.poll() is not None:
            self.worker = self.fresh(deadline)
        return self.worker

    def fresh(self, deadline):
        self.started += 1
        worker = Worker(self.settings, "work_torch", f"workload-{self.started}")
        worker.ask(deadline, "start")
        return worker

    def observed(self, deadline, name, work, *flags):
        """gpuspan's summary of `work(worker)`, and what that answered."""
        if self.blind:
            raise Refused(self.blind)
        worker = self.workload(deadline)
        with self.gpuspan.attach(worker.pid, name, *flags) as observation:
            answer = work(worker)
            return observation.stop(), answer

    def close(self):
        if self.worker:
            self.worker.stop()


#: What may go wrong within a row without ending its stage.
FAILURES = (Refused, Died)
