"""Scores predictions against ground truth: `python -m rmbg_jax.evaluate`.

`benchmarks` finds the data, `predictions` the masks, `scoring` computes
`saliency` and `matting` per image, `results` averages, and the other modules
write what came out.
"""
