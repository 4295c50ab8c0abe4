"""What is wrong with a study, said before any work is lost."""


class StudyError(ValueError):
    """A study cannot be loaded, resumed or run; the message says why and what to do."""
