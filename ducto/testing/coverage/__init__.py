"""The coverage self-test: does a call through each model route of an app move the balance, by the right amount?"""

from __future__ import annotations

from ducto.testing.coverage.canaries import Canary
from ducto.testing.coverage.discovery import manager_of
from ducto.testing.coverage.report import PROBLEMS, RouteResult, SelfTestReport, Verdict
from ducto.testing.coverage.run import self_test

__all__ = ["PROBLEMS", "Canary", "RouteResult", "SelfTestReport", "Verdict", "manager_of", "self_test"]
