"""The jail: from a manifest to a mount plan, and from the plan to a running command."""
