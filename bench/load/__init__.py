"""The two ends of calls, for figures: many at once, cheap, exact, each in a process of its own.

``caller`` is Twilio's end, ``model`` the Realtime API's. What each knows of a run it writes down as
a :mod:`~bench.load.record`; ``truth`` joins the two records, and nothing else is taken as truth.
"""
