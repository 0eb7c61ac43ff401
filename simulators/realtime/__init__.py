"""The model's side of a call, simulated: see ``engine.py`` for the rules, ``server.py`` to serve."""

from simulators.realtime.engine import Engine
from simulators.realtime.script import AgentScript
from simulators.realtime.server import RealtimeSimulator
from simulators.realtime.session_truth import SessionTruth

__all__ = ["AgentScript", "Engine", "RealtimeSimulator", "SessionTruth"]
