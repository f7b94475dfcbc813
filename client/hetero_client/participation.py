"""A client's life in a run: do what the server directs until it says that the run is over."""

from __future__ import annotations

from dataclasses import asdict

from hetero_client.evaluation import evaluate
from hetero_client.progress import Progress
from hetero_client.trainer import Shard, Trainer
from hetero_client.transport import ServerLink
from hetero_common.control import Evaluate, Finish, StartRound
from hetero_common.plan import Plan
from hetero_common.rundir import RunDir


class Participation:
    """Trainer, link and run directory, wired together.

    Args:
        plan: The agreement of the run.
        link: Registered with the server.
        trainer: Trains the device's part.
        test: The whole test split.
        threshold: Largest normalized entropy that the exit may answer at.
        eval_samples: Test images of an evaluation before the last one.
        run_dir: Where metrics go.
        progress: Who watches.
    """

    def __init__(
        self,
        plan: Plan,
        link: ServerLink,
        trainer: Trainer,
        test: Shard,
        *,
        threshold: float,
        eval_samples: int,
        run_dir: RunDir,
        progress: Progress,
    ) -> None:
        self._plan = plan
        self._link = link
        self._trainer = trainer
        self._test = test
        self._threshold = threshold
        self._eval_samples = eval_samples
        self._run_dir = run_dir
        self._progress = progress

    def run(self) -> None:
        """Take part until the run is over.

        Raises:
            HeteroError: The server went away or sent this client away.
        """
        self._link.open()
        while True:
            match self._link.next_directive():
                case StartRound() as start:
                    self._train(start)
                case Evaluate() as request:
                    self._evaluate(request)
                case Finish():
                    return

    def _train(self, start: StartRound) -> None:
        if start.pull_state:
            self._trainer.model.load(self._link.pull_state())
        for step in range(start.steps):
            sent = self._trainer.forward(start.round, step)
            self._link.send_batch(start.round, step, sent.activation, sent.labels)
            waits = self._plan.feedback != "none"
            self._trainer.backward(start.round, step, self._link.feedback(step) if waits else None)
            self._progress.step(start.round, step, start.steps)
        self._link.drain()
        if start.push_state:
            self._link.push_state(start.round, self._trainer.model.weights())
        report = self._trainer.round_done(start.round)
        self._link.report(report)
        self._run_dir.event("round", bytes_sent=self._link.bytes_sent, **asdict(report))
        self._progress.round_done(report)

    def _evaluate(self, request: Evaluate) -> None:
        model = self._trainer.model
        if request.pull_state:
            model.load(self._link.pull_state())
        test = self._test if request.last else self._test.first(self._eval_samples)
        self._progress.evaluating(len(test.labels))
        evaluation = evaluate(
            model,
            test,
            lambda activations: self._link.predict(
                activations, cut_layer=model.cut_layer, fingerprint=model.fingerprint
            ),
            rows=self._plan.predict_rows,
            threshold=self._threshold,
            round_=request.round,
        )
        self._link.report(evaluation)
        self._run_dir.event(
            "evaluation", bytes_sent=self._link.bytes_sent, last=request.last, **asdict(evaluation)
        )
        self._progress.evaluated(evaluation)
