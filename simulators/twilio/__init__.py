"""Twilio's side of a call, simulated: ``carrier.py`` has the rules, ``client.py`` places calls."""

from simulators.twilio.call_truth import BargeIn, CallTruth
from simulators.twilio.carrier import Carrier, StreamTruth
from simulators.twilio.client import CarrierOptions, TwilioCaller
from simulators.twilio.script import CallerScript

__all__ = [
    "BargeIn",
    "CallTruth",
    "CallerScript",
    "Carrier",
    "CarrierOptions",
    "StreamTruth",
    "TwilioCaller",
]
