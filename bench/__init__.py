"""What asheard costs and how right it is, measured on this machine.

``bench.load`` are the two ends of calls as processes of their own, lean enough to load a bridge;
``bench.yardstick`` and ``bench.relay`` are what asheard is measured beside: a bridge of the usual
shape, and the floor. ``bench.run`` does one run and ``bench.command`` is ``asheard bench``. The
simulators of ``simulators`` are strict where these are fast: they are for tests.
"""
