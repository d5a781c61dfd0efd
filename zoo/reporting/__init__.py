"""One self-contained page that shows how runs compare, from their DataTrees alone, without torch and Pyro."""

from zoo.reporting.page import report

__all__ = ["report"]
