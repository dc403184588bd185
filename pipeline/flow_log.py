"""What Prefect logs of a failure: the stage's own sentence, without the frames of whoever ran it."""

import logging

from pipeline.runner import StageFailed, Stopped


class _Sentences(logging.Filter):
    """Takes the traceback from records about stages that failed or were stopped."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if record.exc_info and isinstance(record.exc_info[1], StageFailed | Stopped):
            record.exc_info = record.exc_text = None
        return True


_ONCE = _Sentences()


def tell_failures_in_a_sentence() -> None:
    """Let Prefect's loggers of flows and tasks tell a stage that failed without a traceback."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logging.getLogger(name).addFilter(_ONCE)
