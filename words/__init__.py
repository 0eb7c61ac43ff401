"""Words: when each word of a piece of agent speech sounds, and which words the caller heard.

The way through this package:

* :mod:`words.timing`        the values every part speaks: ``WordTime``, ``WordTimes``
* :mod:`words.tokenize`      text to words, with exact character offsets
* :mod:`words.heard`         word times and a playback position to the heard transcript
* :mod:`words.aligner`       word times by forced alignment of the audio with its text
* :mod:`words.proportional`  word times by counting characters, when there is nothing better
* :mod:`words.passage`       was this price, this disclosure heard?
* :mod:`words.pool`          alignment in worker processes, off the event loop
* :mod:`words.command`       ``asheard align``

Everything but ``pool`` and ``command`` is pure: audio and text in, times out.
"""
