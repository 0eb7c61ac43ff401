"""The model's side of a call, simulated: ``engine.py`` has the rules, ``server.py`` serves."""

from simulators.realtime.engine import Engine
from simulators.realtime.script import AgentScript
from simulators.realtime.server import RealtimeSimulator
from simulators.realtime.session_truth import SessionTruth

__all__ = ["AgentScript", "Engine", "RealtimeSimulator", "SessionTruth"]
