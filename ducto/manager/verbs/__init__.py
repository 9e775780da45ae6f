"""The store's verbs as the manager offers them: typed refusals are raised, events are emitted, keys always
given.
"""
