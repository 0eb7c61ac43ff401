"""The transcript service: keeps the facts of calls and says which words were heard.

join      PURE: facts in, transcript out; any order, any repeats
store     what a store of facts owes us; store_sql and its parts, store_sqlite, store_postgres
ingest    facts on their way in
joined    stored calls, joined: reads only
index     entries of the list, and what is final: writes
watches   who follows which call
calls     what readers may ask
sweeper   adds what only time can tell, by closing (PURE)
access    who may read
rpc       the two gRPC servicers, thin
viewer    the plain page for people
service   everything above, started and drained
"""
