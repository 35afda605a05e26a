"""What a training's log leaves out: other libraries' details, and remarks that tell its user nothing.

Each remark stands here with its reason. A filter compares the text, so whatever else a logger says gets through. One
warning is dropped too. A log file on a full disk ends with one warning.
"""

import functools
import logging
import re
import sys

# loggers whose details log.txt holds
OWN_LOGGERS = ("__main__", "data_prep", "mamba_speech", "modules", "training", "speechbrain")
# by logger: the remarks, as regular expressions that match from the start
_REMARKS = {
    # at every start, whatever the options; a choice of one's own (SB_DISABLE_QUIRKS) is passed on
    "speechbrain.utils.quirks": r"Applied quirks |Excluded quirks .*: \[\]$",
    # that the log begins; where options come from; the network's size, which the recipe says in full
    "speechbrain.core": r"Beginning experiment!|Run option \w+ from hparams is used|Gradscaler enabled: `False`"
    r"|\w+ Model Statistics:",
    # at every epoch, and they name neither sizes nor numbers
    "speechbrain.dataio.sampler": r"Batch quantisation in latent space|DynamicBatchSampler: Generating dynamic batches",
    # at every first start
    "speechbrain.utils.checkpoints": r"Would load a checkpoint here, but none found yet",
    # output of `pip freeze` and `git rev-parse`, which env.log holds
    "speechbrain.utils.superpowers": r"",
}
_WARNINGS = {
    # no recipe saves pictures with SpeechBrain's loggers
    "speechbrain.utils.train_logger": r"torchvision is not available - cannot save figures",
}


class _Without(logging.Filter):
    """Lets through what a regular expression does not match, and what is more serious than ``most``."""

    def __init__(self, pattern, most):
        super().__init__()
        self.pattern, self.most = re.compile(pattern), most

    def filter(self, record):
        return record.levelno > self.most or not self.pattern.match(record.getMessage())


def drop_remarks():
    """Filter the loggers; before SpeechBrain's modules are imported, since one of them warns as it is."""
    for patterns, most in ((_REMARKS, logging.INFO), (_WARNINGS, logging.WARNING)):
        for name, pattern in patterns.items():
            logging.getLogger(name).addFilter(_Without(pattern, most))


def keep_details_of_libraries_out():
    """Keep other libraries' details out of log.txt: SpeechBrain lets every detail through."""
    # every logger without a level of its own has the root's
    logging.getLogger().setLevel(logging.INFO)
    for name in OWN_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG)


def make_log_file_robust():
    """Let the log file hold every text, and end with one warning where it cannot be written any more.

    A name that is not UTF-8 is escaped, in place of a traceback on the screen.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            if handler.stream is not None:
                handler.stream.reconfigure(errors="backslashreplace")
            handler.handleError = functools.partial(_end_log, handler, handler.handleError)


def _end_log(handler, otherwise, record):
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        otherwise(record)
        return
    root = logging.getLogger()
    # a thread may have ended it already
    if handler in root.handlers:
        root.removeHandler(handler)
        reason = error.strerror or type(error).__name__
        root.warning("%s: %s; the log goes on without this file", handler.baseFilename, reason)
