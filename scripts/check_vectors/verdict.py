"""The verdicts on a proof file (PROTOCOL.md, section 8.1) that are not *proven*. Judging raises them where it stops."""


class Verdict(Exception):
    """The argument is the reason's name, or that of what is missing."""

    def name(self):
        return "%s/%s" % (self.what, self.args[0])


class Refuted(Verdict):
    what = "refuted"


class NeedsAnchor(Verdict):
    what = "needs_anchor"


class NeedsNode(Verdict):
    what = "needs_node"


def demand(condition, reason):
    if not condition:
        raise Refuted(reason)
