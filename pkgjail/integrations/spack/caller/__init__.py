"""What a Spack command takes from its caller: arguments, places, variables."""
