"""The system under test: where its parts are, how a private one is built, how it is set.

Nothing here sends load; `loadgen.run` joins this room with the others.
"""
