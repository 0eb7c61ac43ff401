"""Odd input by the million, and what must hold all the same.

``python -m fuzz [--seconds N] [--seed S] [target …]`` tries each target for so long; ``make fuzz`` is
that. Nothing in here is shipped.

gateway   odd HTTP, WebSocket frames and Twilio messages at a gateway process, with good calls beside
          them: it lives, logs no fault of its own, does not grow, and the good calls do not notice
native    odd frames and payloads: the compiled half and Python's give one answer, and the general
          decoder's
model     odd events of the model's, in any order, through decoder, conversation and outbox, and
          through a whole call of the session worker
facts     odd facts through the transcript service and its store; joins of any subset in any order;
          the functions of text
agent     odd agent files: a clear error, in bounded time and memory

Cases are numbered. The same target, seed and number is the same case, so that a finding can be
looked at alone: each is printed with the command for that.
"""
