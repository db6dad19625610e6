"""Predicts on a Ray cluster.

The driver lists photos and writes their names, in tasks of some dozens, into
parts of a manifest at the output (`manifest.py`). One Ray task reads parts as
they appear. A pool of actors does what is in them by `pipeline.run`, as one
machine would (`worker.py`). The rows that come back are the report
(`cluster.py`).

A task whose process dies is done again, wherever there is room. Each try leaves
a mark when it begins. A second try finds it, and does the photos one by one,
with a mark for each. A photo that kills its process several times is given up,
by name.
"""
