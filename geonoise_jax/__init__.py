"""geonoise_jax: noise-conditional and noise-blind diffusion and flow models, next to their exact fields."""
