"""The transcript service: keeps the facts of calls and says which words were heard.

join      PURE: facts in, transcript out; any order, any repeats
store     what a store of facts owes us; store_sql, store_sqlite, store_postgres
calls     shell: joined transcripts of stored calls, watched and listed
access    who may read
service   the two gRPC servicers, thin
viewer    the plain page for people
serve     everything above, started and drained
"""
