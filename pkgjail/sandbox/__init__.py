"""The namespace stage, on the standard library alone: plain steps in, a running command out."""

from pkgjail.sandbox.stage import StageError, run
from pkgjail.sandbox.steps import Command, Plan

__all__ = ["Command", "Plan", "StageError", "run"]
