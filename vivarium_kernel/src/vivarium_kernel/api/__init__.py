"""The room of the HTTP API: a door to one village for people, programs, residents from outside and workers elsewhere.

``server.serve`` opens it. Who may come in where is one table, ``roles.py``; what every route takes and answers are
attrs types, from which ``docs/openapi.json`` is written.
"""
