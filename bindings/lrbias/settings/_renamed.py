"""Words of the first edition, {before: now}: its documents are read with these, and a refusal names the new word."""

RENAMED_SETTINGS = {"scale": "spectral_norm", "pairs": "symmetric_mask", "mean": "reduction"}
RENAMED_INITIALIZATIONS = {"identical": "scaled_identity", "symmetric": "tied"}
RENAMED_METRICS = {"negative_curvature": "hessian_min_eigenvalues", "movement": "distance_from_init"}
RENAMED_SCHEDULES = {"steps": "piecewise_constant", "anneal": "exponential_decay", "periodic": "square_wave"}
RENAMED = {**RENAMED_SETTINGS, **RENAMED_INITIALIZATIONS, **RENAMED_METRICS, **RENAMED_SCHEDULES}
