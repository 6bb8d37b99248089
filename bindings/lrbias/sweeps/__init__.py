"""Many runs: what varies, where they are made, how small ones share a batch, and reading them."""
