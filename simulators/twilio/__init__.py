"""Twilio's side of a call, simulated: ``carrier.py`` has the rules, ``client.py`` places calls."""

from simulators.twilio.call_truth import BargeIn, CallTruth
from simulators.twilio.carrier import Carrier
from simulators.twilio.client import CarrierOptions, TwilioCaller
from simulators.twilio.script import CallerScript
from simulators.twilio.stream_truth import StreamTruth

__all__ = [
    "BargeIn",
    "CallTruth",
    "CallerScript",
    "Carrier",
    "CarrierOptions",
    "StreamTruth",
    "TwilioCaller",
]
