"""Twilio's protocols as plain values: nothing here opens a socket, reads a clock or writes a log.

messages    the JSON of Media Streams, both ways
stream      which message may follow which
frames      a WebSocket text frame's header
signature   X-Twilio-Signature
form        the parameters of a webhook
twiml       what a voice webhook answers
"""
