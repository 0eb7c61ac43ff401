"""The two ends of a call, simulated: Twilio Media Streams and the OpenAI Realtime API.

``simulators.twilio`` is the caller's side, ``simulators.realtime`` the model's,
``simulators.speech`` what both of them say, and ``simulators.truth`` joins what one played with
what the other said.
"""
