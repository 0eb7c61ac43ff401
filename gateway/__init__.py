"""The gateway: Twilio's side of a call, and the one authority on what was played.

turns, media_connection, caller_path    what Twilio sends: read, taken apart, passed on
call, delivery, playout/, record        a call: what is given to be heard, what was heard, who is told
lane, outgoing, link, links, placement  the session workers: which has the call, and the way there
server, webhook, registry               HTTP at the one public port
twilio/                                 PURE: Twilio's messages, their order, signatures, TwiML
service, config, metrics                the process

README.md leads through it; tests/gateway/test_purity.py says which modules are pure.
"""
