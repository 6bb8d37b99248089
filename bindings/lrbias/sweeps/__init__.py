"""Many runs: what varies, where they are made, how small ones are trained side by side, and reading them."""
