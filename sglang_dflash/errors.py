"""The one exception that users see."""


class DFlashError(Exception):
    """A wrong input, named: which field, what is wrong with it, and what to do.

    ``str(error)`` is one line: ``<field>: <problem> (<remedy>)``.
    """

    def __init__(self, field: str, problem: str, remedy: str):
        super().__init__(f"{field}: {problem} ({remedy})")
        self.field = field
        self.problem = problem
        self.remedy = remedy
